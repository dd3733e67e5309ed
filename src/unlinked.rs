//! Opens and writes files and directories without following links.
//!
//! Locks, marks, state and reports are opened and written with these functions: a link in their place would make us
//! truncate or overwrite any file that an attacker chose.

use std::fs::{File, Metadata, OpenOptions, symlink_metadata};
use std::io::{self, Write};
use std::path::Path;

/// Whether there is a directory at `path` itself.
pub(crate) fn is_dir(path: &Path) -> bool {
    symlink_metadata(path).is_ok_and(|there| there.is_dir())
}

/// Whether there is a regular file at `path` itself.
pub(crate) fn is_file(path: &Path) -> bool {
    symlink_metadata(path).is_ok_and(|there| there.is_file())
}

/// Makes the directory `path` and its parents.
///
/// # Errors
/// If there is anything but a directory at `path` itself, such as a link to one.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    match symlink_metadata(path) {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(there) => Err(other(&there)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => std::fs::create_dir_all(path),
        Err(e) => Err(e),
    }
}

/// Opens the regular file at `path` to read and write it, or creates it. It is not truncated.
///
/// # Errors
/// If there is anything but a regular file, or if it is replaced meanwhile.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let there = symlink_metadata(path)?;
    if !there.is_file() {
        return Err(other(&there));
    }
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    match same(&there, &file.metadata()?) {
        true => Ok(file),
        false => Err(io::Error::other("another file was put in its place")),
    }
}

/// Creates the file `path`, replacing an existing regular file.
///
/// # Errors
/// If there is anything but a regular file.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match symlink_metadata(path) {
        Ok(there) if there.is_file() => std::fs::remove_file(path)?,
        Ok(there) => return Err(other(&there)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Writes a file atomically. It replaces what is at `path`; a link is replaced itself.
pub(crate) fn write(path: &Path, bytes: &[u8], temporary: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(temporary).tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

fn other(there: &Metadata) -> io::Error {
    let what = match there.file_type() {
        kind if kind.is_symlink() => "a link",
        kind if kind.is_dir() => "a directory",
        kind if kind.is_file() => "a file",
        _ => "a device or a pipe",
    };
    io::Error::new(io::ErrorKind::AlreadyExists, format!("{what} is in its place, and is left as it is"))
}

#[cfg(unix)]
fn same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// On other systems, making a link needs the rights of an administrator.
#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_a_link_leads_to_is_never_opened_or_written() {
        let dir = tempfile::tempdir().unwrap();
        let (precious, link) = (dir.path().join("precious"), dir.path().join("lock"));
        std::fs::write(&precious, "mine").unwrap();
        symlink(&precious, &link).unwrap();
        let e = open_or_create(&link).unwrap_err();
        assert!(e.to_string().contains("a link is in its place"), "{e}");
        write(&link, b"ours", ".tmp-").unwrap();
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
        assert!(is_file(&link));

        let missing = dir.path().join("missing");
        symlink(dir.path().join("nowhere"), &missing).unwrap();
        assert!(open_or_create(&missing).is_err() && !dir.path().join("nowhere").exists());

        let (real, linked) = (dir.path().join("real"), dir.path().join("linked"));
        make_dir(&real).unwrap();
        make_dir(&real).unwrap();
        symlink(&real, &linked).unwrap();
        assert!(make_dir(&linked).is_err() && !is_dir(&linked) && is_dir(&real));
    }

    #[test]
    fn a_file_that_is_there_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        open_or_create(&path).unwrap().write_all(b"12").unwrap();
        drop(open_or_create(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "12");
    }
}
