//! Commands that are wrong: each ends with exit status 2 and a message that names the thing and what
//! to do. Nothing panics, nothing starts, nothing is half written.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use plinth_test_processes::cluster::{Cluster, free_port, is_of_kind, up};
use plinth_test_processes::{eventually, executable, processes_of, signal};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::Outcome;

/// Runs a command that must end with status 2 and these words.
fn refused(arguments: &[&str], words: &[&str]) -> Outcome {
    let mut command = Command::new(executable()?);
    let output = command.args(arguments).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2), "{arguments:?}: {output:?}");
    ensure!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    ensure!(!said.contains("panicked"), "{said}");
    for word in words {
        ensure!(said.contains(word), "{arguments:?} does not say {word:?}: {said}");
    }
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("a path that is no text")
}

/// Writes a cluster file with coordinators at these ports.
fn cluster_file(path: &Path, cluster: char, ports: &[u16]) -> Outcome {
    let coordinator = |(number, port): (usize, &u16)| {
        let service = format!("coordinator-1@node-{}", number + 1);
        json!({ "service": service, "url": format!("http://127.0.0.1:{port}") })
    };
    let file = json!({
        "cluster": cluster.to_string().repeat(32),
        "coordinators": ports.iter().enumerate().map(coordinator).collect::<Vec<Value>>(),
        "initial_nodes": ["node-1"],
    });
    Ok(std::fs::write(path, file.to_string())?)
}

#[test]
fn flags_and_addresses() -> Outcome {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("cluster.json");
    cluster_file(&file, 'a', &[1])?;
    let file = text(&file)?;
    refused(&["up", "--nonsense"], &["--nonsense", "--help"])?;
    refused(&["upp"], &["upp", "--help"])?;
    refused(&["up", "--nodes", "0"], &["--nodes", "1..=100"])?;
    refused(&["up", "--gateway-port", "70000"], &["--gateway-port", "70000"])?;
    refused(&["up", "--otlp", "nonsense"], &["--otlp", "nonsense", "http://host:4318"])?;
    refused(&["status", "--url", "nonsense"], &["--url", "nonsense", "http://host:port"])?;
    let service = ["--cluster-file", file, "--node"];
    let gateway = |more: &[&str], words: &[&str]| {
        refused(&[&["gateway"], &service[..], more].concat(), words)
    };
    gateway(&["node-1", "--bind", "nonsense"], &["--bind", "nonsense", "host:port"])?;
    gateway(&["node-1", "--bind", "127.0.0.1:99999"], &["--bind", "99999"])?;
    gateway(&["node-1", "--bind", "0.0.0.0:0"], &["--bind", "--secret-file"])?;
    gateway(&["node-1", "--state-reads", "everyone"], &["--state-reads", "loopback", "anyone"])?;
    let node = [&["node"], &service[..], &["node-1", "--data-dir", "/nowhere"]].concat();
    for flag in ["--bind", "--gateway-bind"] {
        refused(&[&node[..], &[flag, "0.0.0.0:0"]].concat(), &[flag, "--secret-file"])?;
    }
    gateway(&["Node 1"], &["Node 1", "node name"])?;
    gateway(&["node-1", "--name", "log-1"], &["--name", "log-1", "gateway"])?;
    gateway(&["node-1", "--otlp", "nonsense"], &["nonsense", "http://host:4318"])?;
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = held.local_addr()?.to_string();
    gateway(&["node-1", "--bind", &address], &[&address, "in use"])?;
    refused(&[&["storage"], &service[..], &["node-1"]].concat(), &["storage", "--data-dir"])?;
    ensure!(std::fs::read_dir(directory.path())?.count() == 1, "something was written");
    Ok(())
}

#[test]
fn a_port_named_by_a_flag_must_be_free_and_a_default_one_is_passed_over() -> Outcome {
    let directory = tempfile::tempdir()?;
    let fresh = directory.path().join("fresh");
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = held.local_addr()?.port().to_string();
    for flag in ["--gateway-port", "--jaeger-port"] {
        refused(&["up", flag, &port, "--data-dir", text(&fresh)?], &[flag, &port, "taken"])?;
        ensure!(!fresh.exists(), "a cluster that can't start was made");
    }
    refused(&["dev", "--gateway-port", &port, "--data-dir", text(&fresh)?], &[&port, "taken"])?;
    // Where somebody else has the default ports they are taken all the same.
    let defaults = [4000, 4001, 16_686].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
    let cluster = Cluster::run(up(&fresh, 3)?, &fresh)?;
    let ports: Vec<u16> = cluster
        .ready
        .gateways
        .iter()
        .chain(&cluster.ready.jaeger)
        .filter_map(|url| url.rsplit_once(':')?.1.parse().ok())
        .collect();
    ensure!(ports.len() == 4 && ports.iter().all(|port| ![4000, 4001, 16_686].contains(port)));
    ensure!(ports[..3].iter().all(|port| (4002..4300).contains(port)), "{ports:?}");
    drop(defaults);
    cluster.put(cluster.gateway()?, "hello", "world")?;
    cluster.stop()
}

#[test]
fn directories_that_can_not_serve() -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    // Permissions do not stop the superuser; these do.
    std::fs::write(path("file"), "not a directory")?;
    for unwritable in [path("file"), path("file/below"), "/proc/plinth".into(), "/proc/1".into()] {
        for command in ["up", "dev"] {
            let unwritable = text(&unwritable)?;
            refused(&[command, "--data-dir", unwritable], &["--data-dir", unwritable, "writable"])?;
        }
    }
    cluster_file(&path("a.json"), 'a', &[1])?;
    cluster_file(&path("b.json"), 'b', &[1])?;
    let of_cluster = |kind: &'static str, file: &str, data: &str| -> anyhow::Result<Vec<String>> {
        let (file, data) = (path(file), path(data));
        let flags =
            [kind, "--node", "node-1", "--cluster-file", text(&file)?, "--data-dir", text(&data)?];
        Ok(flags.map(str::to_owned).to_vec())
    };
    for kind in ["node", "coordinator", "log", "storage"] {
        let line = of_cluster(kind, "a.json", "file")?;
        refused(&line.iter().map(String::as_str).collect::<Vec<_>>(), &[text(&path("file"))?])?;
    }
    // A node's directory that belongs to cluster a.
    std::fs::create_dir(path("node"))?;
    std::fs::write(path("node/cluster"), format!("{}\n", "a".repeat(32)))?;
    let line = of_cluster("node", "b.json", "node")?;
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    refused(&line, &[text(&path("node"))?, &"a".repeat(32), &"b".repeat(32), "--data-dir"])?;
    ensure!(
        std::fs::read_dir(path("node"))?
            .all(|entry| { entry.is_ok_and(|entry| !entry.path().is_dir()) }),
        "something was made in a foreign directory"
    );
    Ok(())
}

#[test]
fn directories_that_a_process_has() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let file = directory.path().join("cluster.json");
    let secret = directory.path().join("secret");
    let node = directory.path().join("node-1");
    for (kind, held) in [
        ("node", node.clone()),
        ("log", node.join("log-1")),
        ("storage", node.join("storage-1")),
        ("coordinator", node.join("coordinator-1")),
    ] {
        let mut line = vec![kind, "--node", "node-1", "--cluster-file", text(&file)?];
        line.extend(["--secret-file", text(&secret)?, "--data-dir", text(&held)?]);
        if kind == "coordinator" {
            // Else its port is in the way first.
            line.extend(["--bind", "localhost:0", "--advertise", "127.0.0.1"]);
        }
        refused(&line, &[text(&held)?, "in use"])?;
    }
    ensure!(cluster.epoch()? == 1, "the running cluster has noticed");
    cluster.put(cluster.gateway()?, "still", "served")?;
    cluster.stop()
}

#[test]
fn cluster_files_that_can_not_be_used() -> Outcome {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("cluster.json");
    let data = directory.path().join("node-1");
    let flags = ["--node", "node-1", "--cluster-file", text(&file)?, "--data-dir", text(&data)?];
    let node = |words: &[&str]| {
        refused(&[&["node"], &flags[..]].concat(), words)?;
        refused(&[&["coordinator"], &flags[..]].concat(), words)?;
        ensure!(!data.exists(), "a directory was made");
        Outcome::Ok(())
    };
    node(&[text(&file)?, "can't be read"])?;
    std::fs::write(&file, "{\"cluster\": ")?;
    node(&[text(&file)?, "plinth up"])?;
    for ports in [&[][..], &[1, 2], &[1, 2, 3, 4]] {
        cluster_file(&file, 'a', ports)?;
        node(&[text(&file)?, &format!("names {} coordinators", ports.len()), "1, 3 or 5"])?;
    }
    cluster_file(&file, 'a', &[1, 1, 1])?;
    node(&[text(&file)?, "twice"])?;
    let before = std::fs::read(&file)?;
    let parent = text(directory.path())?;
    refused(&["up", "--data-dir", parent], &[text(&file)?, "twice"])?;
    ensure!(std::fs::read(&file)? == before, "the file was written");
    // A coordinator that the file does not name has no vote there.
    cluster_file(&file, 'a', &[1])?;
    let mut line = vec!["coordinator"];
    line.extend(flags);
    line[2] = "node-9";
    refused(&line, &["coordinator-1@node-9", text(&file)?])
}

/// It runs on, since they may come; meanwhile its log says whom it can't reach, and what to do.
#[test]
fn a_node_that_can_not_reach_its_coordinators_says_so() -> Outcome {
    let directory = tempfile::tempdir()?;
    let (file, data) = (directory.path().join("cluster.json"), directory.path().join("data"));
    let ports = [free_port()?, free_port()? + 1, free_port()? + 2];
    cluster_file(&file, 'a', &ports)?;
    let mut node = Command::new(executable()?)
        .args(["node", "--node", "node-7", "--cluster-file", text(&file)?])
        .args(["--data-dir", text(&data)?])
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(directory.path().join("node.log"))?)
        .spawn()?;
    let said = eventually("word of the coordinators", || {
        let said = std::fs::read_to_string(directory.path().join("node.log"))?;
        for word in [&format!("127.0.0.1:{}", ports[0])[..], "coordinator", "cluster file"] {
            ensure!(said.contains(word), "no {word:?} in {said}");
        }
        Ok(said)
    });
    let lives_on = node.try_wait()?.is_none();
    signal(node.id(), Signal::TERM)?;
    eventually("its end", || node.try_wait()?.context("it still runs"))?;
    let said = said?;
    ensure!(lives_on, "it has ended: {said}");
    ensure!(!said.contains("panicked"), "{said}");
    ensure!(processes_of(directory.path())?.is_empty(), "something is left");
    let durable = std::fs::read_dir(&data)?.filter_map(Result::ok).filter(|entry| {
        let name = entry.file_name();
        ["log-", "storage-"].iter().any(|kind| name.to_string_lossy().starts_with(kind))
    });
    ensure!(durable.filter(|entry| entry.path().is_dir()).count() == 0, "made without a cluster");
    Ok(())
}

/// `plinth up` ends with status 1 and says what it has waited for.
#[test]
fn a_cluster_that_does_not_become_ready_says_what_is_missing() -> Outcome {
    let directory = tempfile::tempdir()?;
    let cluster = Cluster::start(directory.path())?;
    let log = cluster.process(|row| is_of_kind(row, "coordinator"))?;
    ensure!(log.role != "serving", "{log:?}");
    cluster.stop()?;
    // Two of the three coordinators have lost their ports to somebody else.
    let file: Value =
        serde_json::from_slice(&std::fs::read(directory.path().join("cluster.json"))?)?;
    let ports =
        file["coordinators"].as_array().context("no coordinators")?[..2].iter().map(|entry| {
            let url = entry["url"].as_str().context("no url")?;
            Ok(url.rsplit_once(':').context("no port")?.1.parse()?)
        });
    let ports = ports.collect::<anyhow::Result<Vec<u16>>>()?;
    let held: Vec<_> =
        ports.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port))).collect();
    let mut command = up(directory.path(), 3)?;
    command.args(["--ready-timeout", "5", "--gateway-port", &free_port()?.to_string()]);
    let output = command.output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    ensure!(output.stdout.is_empty(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(said.contains("not ready after 5 s") && said.contains(".log"), "{said}");
    ensure!(processes_of(directory.path())?.is_empty(), "something is left");
    drop(held);
    Ok(())
}
