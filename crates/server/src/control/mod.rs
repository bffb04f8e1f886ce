//! Asking a running job: `ruslo savepoint` and `ruslo stop`, and the same over HTTP.
//!
//! [`protocol`] is what is said, [`door`] is where a running job listens in its checkpoint folder, [`client`] is who
//! knocks. `docs/design/savepoint.md` has the format.

mod client;
mod door;
pub(crate) mod protocol;

pub(crate) use client::{savepoint, stop};
pub(crate) use door::Door;

use std::path::{Path, PathBuf};

use ruslo::{Error, Result};

/// The socket's name in the checkpoint folder.
const SOCKET: &str = "control.sock";

/// The longest path that a socket can have on every system, in bytes.
const SOCKET_PATH_MAX: usize = 100;

/// The socket of `folder` under a name that is short enough, which holds as long as what is beside it.
fn address(folder: &Path) -> Result<(PathBuf, Option<std::fs::File>)> {
    let path = folder.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok((path, None));
    }
    through_descriptor(folder)
}

/// By way of the open folder, which has a short name where `/proc` is.
fn through_descriptor(folder: &Path) -> Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd;

    let opened = std::fs::OpenOptions::new().read(true).open(folder);
    let opened = opened.map_err(|error| Error::io(folder.display(), &error))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()));
    match path.parent().is_some_and(Path::exists) {
        true => Ok((path, Some(opened))),
        false => Err(Error::resource(format!(
            "{}: the path is too long for a socket; keep the checkpoints in a folder with a shorter one",
            folder.display()
        ))),
    }
}
