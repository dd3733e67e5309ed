//! One small run of pipelines/hapt.toml that several tests use, in a directory like a fresh checkout: `pipelines/`,
//! `examples/data/` and, after the run, `out/`.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tempfile::TempDir;

/// The directory, and what the run printed.
pub struct SmallRun {
    dir: TempDir,
    /// The summary.
    pub summary: String,
}

/// The run, made once and removed with the last test that uses it.
pub fn small_run() -> Arc<SmallRun> {
    static SHARED: Mutex<Weak<SmallRun>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let run = Arc::new(SmallRun::make());
        *shared = Arc::downgrade(&run);
        run
    })
}

impl SmallRun {
    fn make() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dir = tempfile::tempdir().unwrap();
        for part in ["pipelines", "examples/data"] {
            copy(&root.join(part), &dir.path().join(part));
        }
        let mut run = Self { dir, summary: String::new() };
        let sets = ["stage.autoencoder.epochs=3", "stage.manifold.epochs=20"];
        run.summary = run.dacpipe(&["run", "pipelines/hapt.toml", "--quiet", "--set", sets[0], "--set", sets[1]]).0;
        run
    }

    /// Where the run is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `program` in the directory, without environment variables that would change its behaviour.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(self.path());
        for variable in ["HAPT_DATA", "DACPIPE_THREADS", "DACPIPE_LOG", "SOURCE_DATE_EPOCH"] {
            command.env_remove(variable);
        }
        command
    }

    /// The stdout and stderr of `dacpipe`, which must succeed.
    pub fn dacpipe(&self, args: &[&str]) -> (String, String) {
        finish(self.command(env!("CARGO_BIN_EXE_dacpipe")).args(args), 0)
    }

    /// The result of a query over the tables of the run, as CSV.
    pub fn sql(&self, query: &str) -> String {
        self.dacpipe(&["sql", "--format", "csv", "-c", query]).0
    }
}

/// The stdout and stderr of a command, which must end with the exit code `code`.
pub fn finish(command: &mut Command, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{command:?}\nstdout: {stdout}\nstderr: {stderr}");
    assert!(!stderr.contains("panicked"), "{command:?}\nstderr: {stderr}");
    (stdout, stderr)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), &target).unwrap()),
        }
    }
}
