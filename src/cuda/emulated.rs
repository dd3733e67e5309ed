//! A machine for tests: the kernels' text compiled for the processor, their threads run one after the other.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::kernels::{Family, Kernel};
use super::machine::{Argument, Blas, Machine, Memory, Product, Recorded};
use crate::error::Result;

/// `launch` of the compiled text: a kernel's name, the grid, the block, whether its threads wait, its arguments.
type Launch = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_uint, c_int, *mut *mut c_void) -> c_int;

/// The processor as a machine that runs kernels.
#[derive(Debug, Clone)]
pub(crate) struct Emulated {
    launch: Launch,
    /// What was asked for since a recording began, if one did.
    recording: Arc<Mutex<Option<Vec<Work>>>>,
}

/// Something that was asked for.
#[derive(Debug, Clone)]
enum Work {
    Launch(Kernel, [u32; 2], u32, Vec<Argument>),
    Multiply(Product),
}

/// The compiled kernels keep what they are at in one place.
static TURN: Mutex<()> = Mutex::new(());

impl Emulated {
    /// The machine; or why there is none.
    pub fn new() -> Result<Self, String> {
        static LAUNCH: OnceLock<Result<Launch, String>> = OnceLock::new();
        let launch = LAUNCH.get_or_init(compiled).clone()?;
        Ok(Self { launch, recording: Arc::default() })
    }

    fn start(&self, kernel: Kernel, grid: [u32; 2], block: u32, arguments: &[Argument]) {
        let name = CString::new(kernel.name).expect("no zero in a name");
        let mut values = arguments.to_vec();
        let mut places: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| match value {
                Argument::Wide(value) => std::ptr::from_mut(value).cast(),
                Argument::Word(value) => std::ptr::from_mut(value).cast(),
                Argument::Single(value) => std::ptr::from_mut(value).cast(),
                Argument::Double(value) => std::ptr::from_mut(value).cast(),
            })
            .collect();
        let waits = c_int::from(waits(kernel));
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as the caller of `Machine::launch` promises for the kernel.
        let known = unsafe { (self.launch)(name.as_ptr(), grid[0], grid[1], block, waits, places.as_mut_ptr()) };
        assert_eq!(known, arguments.len() as c_int, "arguments of {}", kernel.name);
    }
}

/// The text of a kernel with its arguments.
fn text_of(kernel: Kernel) -> &'static str {
    let text = kernel.family.own_text().split("extern \"C\" __global__ void ").skip(1);
    text.into_iter().find(|text| text.starts_with(&format!("{}(", kernel.name))).expect("a known kernel")
}

/// Whether the threads of a block wait for each other.
fn waits(kernel: Kernel) -> bool {
    let text = text_of(kernel);
    text.contains("__syncthreads") || text.contains("block_sum")
}

/// The kernels, compiled by the machine's C++ compiler into a library, which this process keeps.
fn compiled() -> Result<Launch, String> {
    let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (source, library) = (directory.path().join("kernels.cpp"), directory.path().join("kernels.so"));
    let mut text = include_str!("emulated.cpp").to_string();
    text += include_str!("kernels/common.cu");
    Family::ALL.iter().for_each(|family| text += family.own_text());
    text +=
        "extern \"C\" int launch(const char* name, unsigned x, unsigned y, unsigned block, int waits, void** a) {\n";
    text += "given = a;\nint count = 0;\n";
    for kernel in Kernel::ALL {
        let count = text_of(*kernel).split(')').next().unwrap_or_default().matches(',').count() + 1;
        let name = kernel.name;
        text += &format!("if (!strcmp(name, \"{name}\")) {{ count = {count}; ");
        text += &format!("body = [](void** a) {{ with({name}, a); }}; }}\n");
    }
    text += "if (count) run(x, y, block, waits);\nreturn count;\n}\n";
    std::fs::write(&source, text).map_err(|e| e.to_string())?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let made = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-Wall", "-Wno-unknown-pragmas", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source)
        .output()
        .map_err(|e| format!("there is no C++ compiler {compiler:?} to compile the kernels for the processor: {e}"))?;
    assert!(made.status.success(), "{compiler}: {}", String::from_utf8_lossy(&made.stderr));
    opened(&library)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn opened(library: &std::path::Path) -> Result<Launch, String> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(library.as_os_str().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: a library without anything that runs when it is opened; it is never closed. `launch` has this type.
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        let launch = if library.is_null() { library } else { libc::dlsym(library, c"launch".as_ptr()) };
        match launch.is_null() {
            true => Err(format!("the compiled kernels cannot be opened: {}", library.is_null())),
            false => Ok(std::mem::transmute::<*mut c_void, Launch>(launch)),
        }
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn opened(_: &std::path::Path) -> Result<Launch, String> {
    Err("kernels are emulated on Linux alone".into())
}

/// A column-major product as cuBLAS makes it, in plain loops.
fn multiply(Blas { transposed, sizes: [m, n, k], matrices: [(a, lda), (b, ldb), (c, ldc)] }: &Blas) {
    let at = |address: u64, place: usize| (address as *mut f32).wrapping_add(place);
    for (j, i) in (0..*n).flat_map(|j| (0..*m).map(move |i| (j, i))) {
        let mut sum = 0.0;
        for p in 0..*k {
            let left = if transposed[0] { p + i * lda } else { i + p * lda };
            let right = if transposed[1] { j + p * ldb } else { p + j * ldb };
            // SAFETY: as the caller of `Machine::multiply` promises.
            sum += unsafe { *at(*a, left) * *at(*b, right) };
        }
        // SAFETY: as the caller of `Machine::multiply` promises.
        unsafe { *at(*c, i + j * ldc) = sum };
    }
}

impl Machine for Emulated {
    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>> {
        let mut values = vec![GUARD; bytes.div_ceil(size_of::<u32>()) + 2 * GUARDS];
        let len = values.len();
        values[GUARDS..len - GUARDS].fill(0);
        Ok(Box::new(Host(values)))
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn launch(&self, kernel: Kernel, grid: [u32; 2], block: u32, arguments: &[Argument]) -> Result<()> {
        match &mut *self.recording.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(work) => work.push(Work::Launch(kernel, grid, block, arguments.to_vec())),
            None => self.start(kernel, grid, block, arguments),
        }
        Ok(())
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        match &mut *self.recording.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(work) => work.push(Work::Multiply(*product)),
            None => multiply(&product.blas()),
        }
        Ok(())
    }

    fn record(&self, task: &mut dyn FnMut() -> Result<()>) -> Option<Box<dyn Recorded>> {
        let recording = || self.recording.lock().unwrap_or_else(PoisonError::into_inner);
        *recording() = Some(Vec::new());
        let done = task();
        let work = recording().take()?;
        done.ok().map(|()| Box::new(Replay { machine: self.clone(), work }) as Box<dyn Recorded>)
    }
}

/// Memory between words that no kernel may touch: as floats they are no numbers, so that what is read there is seen, and what
/// is written there is found at the end.
#[derive(Debug)]
struct Host(Vec<u32>);

/// Such a word, and how many there are on each side.
const GUARD: u32 = 0x7ff8_dead;
const GUARDS: usize = 64;

impl Memory for Host {
    fn address(&self) -> u64 {
        self.0[GUARDS..].as_ptr() as u64
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let guards = self.0[..GUARDS].iter().chain(&self.0[self.0.len() - GUARDS..]);
        let untouched = guards.into_iter().all(|&word| word == GUARD);
        assert!(untouched || std::thread::panicking(), "a kernel wrote beside its memory");
    }
}

#[derive(Debug)]
struct Replay {
    machine: Emulated,
    work: Vec<Work>,
}

impl Recorded for Replay {
    fn replay(&self) -> Result<()> {
        for work in &self.work {
            match work {
                Work::Launch(kernel, grid, block, arguments) => self.machine.start(*kernel, *grid, *block, arguments),
                Work::Multiply(product) => multiply(&product.blas()),
            }
        }
        Ok(())
    }
}
