//! The record of a campaign: which seeds have been run and what came of each, so that a campaign that
//! was ended goes on where it was.
//!
//! A file of lines of JSON. The first one says what was run: a record is of one build and one set of
//! arguments, and another campaign does not go on with it. Each further line is a seed's outcome. A
//! last line that was cut off, as by `kill -9`, is dropped, and its seed run again.

use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::campaign::Outcome;

/// What a record is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heading {
    /// The build, as [`build`] tells it.
    pub build: String,
    /// What each seed's process was told beside its seed.
    pub arguments: Vec<String>,
}

impl Heading {
    /// Where the record stands that a path names: in the file, or in the directory under a name that
    /// no other build or campaign has.
    #[must_use]
    pub fn place(&self, path: &Path) -> PathBuf {
        if !path.is_dir() && path.extension().is_some() {
            return path.to_owned();
        }
        let mut hasher = DefaultHasher::new();
        for part in std::iter::once(&self.build).chain(&self.arguments) {
            hasher.write_usize(part.len());
            hasher.write(part.as_bytes());
        }
        path.join(format!("{:016x}.jsonl", hasher.finish()))
    }
}

/// Which build an executable is: the same text for the same bytes.
///
/// # Errors
/// It can't be read.
pub fn build(executable: &Path) -> io::Result<String> {
    let mut hasher = DefaultHasher::new();
    hasher.write(&fs::read(executable)?);
    Ok(format!("{:016x}", hasher.finish()))
}

/// An open record.
#[derive(Debug)]
pub struct Record(File);

impl Record {
    /// Opens the record in a file, or begins it. Answers what it holds already.
    ///
    /// # Errors
    /// The file can't be read or written, is no record, or is one of something else.
    pub fn open(path: &Path, heading: &Heading) -> anyhow::Result<(Record, Vec<Outcome>)> {
        let shown = path.display();
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(path);
        let file = file.with_context(|| shown.to_string())?;
        let text = fs::read_to_string(path).with_context(|| shown.to_string())?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        file.set_len(u64::try_from(whole)?).with_context(|| shown.to_string())?;
        let mut record = Record(file);
        let mut lines = text[..whole].lines();
        match lines.next() {
            None => record.write(heading)?,
            Some(first) => {
                let there: Heading = serde_json::from_str(first)
                    .with_context(|| format!("{shown} is no record of a campaign"))?;
                if there != *heading {
                    bail!(
                        "{shown} is the record of another build or campaign: name another file, or remove it"
                    );
                }
            }
        }
        let outcomes = lines.enumerate().map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{shown}, line {}", number + 2))
        });
        Ok((record, outcomes.collect::<anyhow::Result<_>>()?))
    }

    /// Adds an outcome.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        self.write(outcome)
    }

    fn write(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line)?;
        ensure!(!text.contains('\n'), "a line of JSON has no line break");
        text.push('\n');
        // At once, so that nothing but the last line is ever cut off.
        self.0.write_all(text.as_bytes()).context("the record of the campaign")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(seed: u64) -> Outcome {
        Outcome::Failed { seed, output: "two\nlines".to_owned() }
    }

    fn heading(build: &str) -> Heading {
        Heading { build: build.to_owned(), arguments: vec!["--fault".to_owned()] }
    }

    #[test]
    fn a_campaign_goes_on_where_it_was() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("deeper").join("record");
        let (mut record, done) = Record::open(&path, &heading("a"))?;
        assert_eq!(done, []);
        for seed in [3, 1] {
            record.note(&failed(seed))?;
        }
        drop(record);
        assert_eq!(Record::open(&path, &heading("a"))?.1, [failed(3), failed(1)]);

        let whole = fs::read_to_string(&path)?;
        fs::write(&path, &whole[..whole.len() - 4])?;
        let (mut record, done) = Record::open(&path, &heading("a"))?;
        assert_eq!(done, [failed(3)], "the line that was cut off is dropped");
        record.note(&failed(2))?;
        drop(record);
        assert_eq!(Record::open(&path, &heading("a"))?.1, [failed(3), failed(2)]);
        Ok(())
    }

    #[test]
    fn a_record_of_something_else_is_not_gone_on_with() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("record");
        Record::open(&path, &heading("a"))?.0.note(&failed(1))?;
        let before = fs::read(&path)?;
        let refused = |heading: &Heading| Record::open(&path, heading).err().map(|e| e.to_string());
        assert!(refused(&heading("b")).is_some_and(|why| why.contains("another build")));
        assert_eq!(fs::read(&path)?, before, "it is left as it was");
        fs::write(&path, "something\nelse\n")?;
        assert!(refused(&heading("a")).is_some_and(|why| why.contains("no record")));
        Ok(())
    }

    #[test]
    fn a_directory_has_a_record_for_each_build() {
        let place = |build: &str| heading(build).place(Path::new("records"));
        assert_eq!(place("a"), place("a"));
        assert_ne!(place("a"), place("b"));
        assert_eq!(heading("a").place(Path::new("x.jsonl")), Path::new("x.jsonl"));
    }

    #[test]
    fn builds_are_told_apart() -> io::Result<()> {
        let this = build(&std::env::current_exe()?)?;
        assert_eq!(this, build(&std::env::current_exe()?)?);
        assert_ne!(this, build(Path::new("/dev/null"))?);
        Ok(())
    }
}
