//! Small files, directories and locks.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use plinth_store::{DirectoryLock, StoreError};

/// What this crate puts beside the caller's files begins with this and is not listed.
const OWN: &str = ".plinth-";
const LOCK: &str = ".plinth-lock";

pub(crate) fn read(path: &Path) -> Result<Option<Bytes>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes.into())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, &error)),
    }
}

pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let (Some(name), Some(directory)) = (path.file_name(), path.parent()) else {
        return Err(failed(
            path,
            &io::Error::new(ErrorKind::InvalidInput, "is not the name of a file"),
        ));
    };
    create_directory(directory)?;
    let mut temporary_name = std::ffi::OsString::from(OWN);
    temporary_name.push(name);
    let temporary = directory.join(temporary_name);
    write_and_rename(&temporary, path, directory, bytes).map_err(|error| {
        // It may not be there; and if it can't be removed, the next replacement overwrites it.
        let _ = fs::remove_file(&temporary);
        failed(path, &error)
    })
}

fn write_and_rename(
    temporary: &Path,
    path: &Path,
    directory: &Path,
    bytes: &[u8],
) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)?;
    sync_directory(directory)
}

pub(crate) fn list(directory: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(directory, &error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| failed(directory, &error))?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with(OWN) {
            names.push(name.into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Each directory that is made is synced into the one above it.
pub(crate) fn create_directory(directory: &Path) -> Result<(), StoreError> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let above = parent(directory);
    create_directory(&above)?;
    match fs::create_dir(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists && directory.is_dir() => {}
        Err(error) => return Err(failed(directory, &error)),
    }
    sync_directory(&above).map_err(|error| failed(&above, &error))
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|error| failed(from, &error))?;
    let (left, entered) = (parent(from), parent(to));
    sync_directory(&entered).map_err(|error| failed(&entered, &error))?;
    if left != entered {
        sync_directory(&left).map_err(|error| failed(&left, &error))?;
    }
    Ok(())
}

pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let is_directory = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, &error)),
    };
    let removed = if is_directory { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| failed(path, &error))?;
    let above = parent(path);
    sync_directory(&above).map_err(|error| failed(&above, &error))
}

/// The lock is the kernel's, on an open file that is closed when a child process starts: it ends
/// with this process, however that ends, and no child keeps it.
pub(crate) fn lock(directory: &Path) -> Result<Box<dyn DirectoryLock>, StoreError> {
    create_directory(directory)?;
    let path = directory.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| failed(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Box::new(HeldLock(file))),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::Locked { path: directory.display().to_string() })
        }
        Err(TryLockError::Error(error)) => Err(failed(&path, &error)),
    }
}

/// Closing the file frees the lock.
struct HeldLock(#[expect(dead_code, reason = "held for its drop")] File);

impl DirectoryLock for HeldLock {}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_path_buf(),
        None => PathBuf::from("/"),
    }
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    let path = path.display().to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full { path },
        _ => StoreError::Io { path, detail: error.to_string() },
    }
}
