//! One service by itself, which is asked things that nobody would ask.

use std::sync::{Arc, Mutex, PoisonError};

use plinth_runtime::{Runtime, Scope, ScopeGuard};
use plinth_service::{Exit, Host};
use plinth_store::{DiskDelays, SimulatedDisk};
use plinth_types::ServiceKind;

use crate::{options, secrets, serve};

/// A service on a scratch directory. When it ends, since it was told to or what it was told makes no
/// sense, it is started anew at the same address, on another scratch directory.
pub struct Alone {
    url: String,
    ends: Arc<Mutex<Vec<Exit>>>,
    _guard: ScopeGuard,
    _directory: tempfile::TempDir,
}

impl Alone {
    /// Starts it.
    ///
    /// # Errors
    /// The system's refusal of a file or a socket.
    pub async fn start(kind: ServiceKind) -> anyhow::Result<Alone> {
        let directory = tempfile::tempdir()?;
        let secrets = secrets(directory.path())?;
        let runtime = Runtime::real();
        let first = options(kind, "127.0.0.1:0", &secrets)?;
        let mut host = Host::bind(runtime.clone(), first).await?;
        let address = host.context().pid().address.clone();
        let (scope, guard) = Scope::new();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let (homes, noted) = (directory.path().to_owned(), Arc::clone(&ends));
        let url = format!("http://{address}");
        drop(scope.spawn("service", async move {
            for life in 0_u32.. {
                let home = homes.join(life.to_string());
                let made = std::fs::create_dir(&home);
                made.unwrap_or_else(|error| panic!("{}: {error}", home.display()));
                let disk = SimulatedDisk::new("node-1", runtime.random(), DiskDelays::none(), None);
                let service = host.context().service().clone();
                let exit = serve(kind, host, home, service, disk).await;
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(exit);
                host = again(kind, &address, &runtime, &secrets).await;
            }
        }));
        Ok(Alone { url, ends, _guard: guard, _directory: directory })
    }

    /// Where it answers, `http://host:port`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How it has ended so far.
    #[must_use]
    pub fn ends(&self) -> Vec<Exit> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Binds the same address once more, which the system may not let go at once.
async fn again(
    kind: ServiceKind,
    address: &str,
    runtime: &Runtime,
    secrets: &plinth_service::Secrets,
) -> Host {
    let mut attempts = 0;
    loop {
        let options = options(kind, address, secrets).unwrap_or_else(|error| panic!("{error}"));
        match Host::bind(runtime.clone(), options).await {
            Ok(host) => return host,
            Err(error) if attempts == 500 => panic!("{error}"),
            Err(_) => attempts += 1,
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
