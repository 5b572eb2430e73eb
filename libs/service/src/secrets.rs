//! Shared secrets, which prove who calls. They come from files, are never printed, and are compared
//! in constant time.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use http::HeaderValue;
use plinth_runtime::Runtime;
use subtle::ConstantTimeEq as _;

/// The shortest secret that is taken, in characters.
pub const SECRET_MIN: usize = 16;
/// The longest secret that is taken, in characters.
pub const SECRET_MAX: usize = 512;

/// A secret could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can't be read or written.
    #[error("the secret file {path} can't be used")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The text is no secret.
    #[error(
        "the secret file {path} must hold {SECRET_MIN} to {SECRET_MAX} printable ASCII characters without spaces"
    )]
    Form {
        /// The file.
        path: String,
    },
}

/// A secret text. It has no `Display`, and its `Debug` form does not show it.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Reads a secret; white space around it is ignored.
    ///
    /// # Errors
    /// The file can't be read, or does not hold a secret.
    pub fn from_file(path: &Path) -> Result<Secret, SecretError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SecretError::File { path: path.display().to_string(), source })?;
        Secret::parse(text.trim())
            .ok_or_else(|| SecretError::Form { path: path.display().to_string() })
    }

    /// A new random secret of 256 bits.
    #[must_use]
    pub fn generate(runtime: &Runtime) -> Secret {
        Secret(format!("{:032x}{:032x}", runtime.random_u128(), runtime.random_u128()))
    }

    /// Writes the secret into a new file that only its owner can read.
    ///
    /// # Errors
    /// The file is there already, or can't be written.
    pub fn save(&self, path: &Path) -> Result<(), SecretError> {
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(self.0.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        };
        write().map_err(|source| SecretError::File { path: path.display().to_string(), source })
    }

    fn parse(text: &str) -> Option<Secret> {
        let valid = (SECRET_MIN..=SECRET_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        valid.then(|| Secret(text.to_owned()))
    }

    /// Whether `offered` is this secret. Takes the same time wherever they differ.
    #[must_use]
    pub fn matches(&self, offered: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(offered).into()
    }

    /// The secret after `prefix`, as a header that is not logged. Every secret fits.
    pub(crate) fn header(&self, prefix: &str) -> Option<HeaderValue> {
        let mut value = HeaderValue::try_from(format!("{prefix}{}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a service knows to tell callers apart.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Proves a service of the cluster. Without one, whoever names itself is believed.
    pub cluster: Option<Secret>,
    /// Proves the administrator. Without one nobody is, unless there is no cluster secret either.
    pub administrator: Option<Secret>,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_survives_its_file_and_is_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let secret = Secret::generate(&Runtime::real());
        secret.save(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only the owner reads it");
        assert!(matches!(secret.save(&path), Err(SecretError::File { .. })));
        let read = Secret::from_file(&path).unwrap();
        assert!(read.matches(secret.0.as_bytes()));
        assert!(!read.matches(b"another"));
        assert!(!format!("{read:?} {:?}", read.header("Bearer ")).contains(&secret.0));
    }

    #[test]
    fn only_a_secret_is_taken_for_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for text in ["", "short", "has some spaces in it", "ünprintable-äöü-äöü"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Secret::from_file(&path), Err(SecretError::Form { .. })), "{text}");
        }
        std::fs::write(&path, "  0123456789abcdef\n").unwrap();
        assert!(Secret::from_file(&path).unwrap().matches(b"0123456789abcdef"));
    }
}
