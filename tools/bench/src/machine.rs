//! What the figures were measured on.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::Bench;

/// Writes that are timed to know the disk.
const SYNCS: u32 = 200;
/// The size of each.
const BLOCK: [u8; 4096] = [0x5a; 4096];

/// The machine, the versions and how much is measured, as Markdown.
pub(crate) fn describe(bench: &Bench) -> anyhow::Result<String> {
    let extent = bench.extent;
    let directory = bench.fresh("disk")?;
    let syncs = syncs_per_second(&directory)?;
    let etcd = match &bench.etcd {
        Some(etcd) => first_line(Command::new(etcd).arg("--version")),
        None => "etcd not measured".to_owned(),
    };
    Ok(format!(
        "# Benchmark, {date}\n\n\
         - {cpus} x {cpu}, {memory} MiB of memory, {kernel}\n\
         - {syncs:.0} appends of 4 KiB with fdatasync a second, one after the other\n\
         - load average at the start: {load}; figures count on a quiet machine only\n\
         - {plinth}; {etcd}; three nodes each on loopback, data on disk, the load generator beside\n\
         - {keys} keys, values of 100 bytes, {seconds} s a figure, medians of {runs} runs\n",
        date = first_line(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"])),
        cpus = std::thread::available_parallelism().map_or(0, usize::from),
        cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "processor".to_owned()),
        memory = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
            .map_or(0, |kib| kib >> 10),
        kernel = first_line(Command::new("uname").arg("-sr")),
        load = load_average(),
        plinth = first_line(Command::new(&bench.plinth).arg("--version")),
        keys = extent.keys,
        seconds = extent.measure.as_secs_f64(),
        runs = extent.runs,
    ))
}

/// The load average of the last minute.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

fn syncs_per_second(directory: &Path) -> anyhow::Result<f64> {
    let path = directory.join("appended");
    let mut file =
        File::create(&path).with_context(|| format!("{} can't be written", path.display()))?;
    let start = Instant::now();
    for _ in 0..SYNCS {
        file.write_all(&BLOCK)?;
        file.sync_data()?;
    }
    Ok(f64::from(SYNCS) / start.elapsed().as_secs_f64())
}

fn first_line(command: &mut Command) -> String {
    let output = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim_start().strip_prefix(':')?.trim().to_owned())
}
