//! Opens regular local files: never a pipe that waits for a writer, or a device without an end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Opens a file without waiting.
///
/// # Errors
/// [`Unsupported`](io::ErrorKind::Unsupported) for a pipe, a socket, a device or a directory, which the message names;
/// otherwise the system's error.
pub fn open_regular(path: &Path) -> io::Result<File> {
    check_regular(path)?;
    File::open(path)
}

/// Checks that there is a file, as [`open_regular`] does, and returns its size in bytes.
///
/// # Errors
/// As [`open_regular`].
pub fn check_regular(path: &Path) -> io::Result<u64> {
    let found = std::fs::metadata(path)?;
    match special(found.file_type()) {
        Some(what) => {
            let words = match what {
                "a pipe" => "it is a pipe, which can be read only once; write it to a file first".to_owned(),
                what => format!("it is {what}, expected a file"),
            };
            Err(io::Error::new(io::ErrorKind::Unsupported, words))
        }
        None => Ok(found.len()),
    }
}

/// The content of a file that is read once, such as a pipeline or a query: at most `most` bytes. It may be the pipe of
/// another process (`/dev/stdin`, `<(…)` of a shell), which has a writer and so an end.
///
/// # Errors
/// [`FileTooLarge`](io::ErrorKind::FileTooLarge) beyond `most` bytes, otherwise as [`open_regular`].
pub fn read_small(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = match check_regular(path) {
        Ok(_) => File::open(path)?,
        // An anonymous pipe has a writer; a named pipe may wait for one for ever.
        Err(_) if is_pipe(path) && std::fs::canonicalize(path).is_err() => File::open(path)?,
        Err(e) => return Err(e),
    };
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        let words = format!("it is larger than {most} bytes, the most that is accepted");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, words));
    }
    Ok(content)
}

/// The name of that type of file in messages.
pub(super) fn kind_of(kind: std::fs::FileType) -> &'static str {
    special(kind).unwrap_or("a file")
}

#[cfg(unix)]
fn special(kind: std::fs::FileType) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    let kinds: [(bool, &str); 5] = [
        (kind.is_dir(), "a directory"),
        (kind.is_fifo(), "a pipe"),
        (kind.is_socket(), "a socket"),
        (kind.is_char_device(), "a device"),
        (kind.is_block_device(), "a device"),
    ];
    kinds.into_iter().find(|(is, _)| *is).map(|(_, what)| what)
}

#[cfg(not(unix))]
fn special(kind: std::fs::FileType) -> Option<&'static str> {
    kind.is_dir().then_some("a directory")
}

fn is_pipe(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| special(found.file_type()) == Some("a pipe"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_is_read_up_to_its_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, "1234").unwrap();
        assert_eq!(read_small(&path, 4).unwrap(), b"1234");
        let e = read_small(&path, 3).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(check_regular(&path).unwrap(), 4);
        assert_eq!(open_regular(&dir.path().join("y")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn what_has_no_end_is_named_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, socket) = (dir.path().join("p"), dir.path().join("s"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, what) in [
            (pipe.as_path(), "a pipe"),
            (&socket, "a socket"),
            (dir.path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
        ] {
            for e in [open_regular(path).unwrap_err(), read_small(path, 10).unwrap_err()] {
                assert_eq!(e.kind(), io::ErrorKind::Unsupported, "{}", path.display());
                assert!(e.to_string().contains(what), "{e}");
            }
        }
    }
}
