//! `docs/failures.md` against the code: every test, fault point and control that it names is there.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::tidy::collect;

/// How many failures the design names.
const FAILURES: usize = 30;

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    number: usize,
    tests: Vec<(String, String)>,
    faults: Vec<String>,
    controls: Vec<String>,
}

/// What stands in backquotes.
fn names(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn rows(text: &str) -> Vec<Row> {
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, tests, _, faults, controls] = cells.as_slice() else { return None };
        let pair = |name: String| {
            let (owner, test) = name.split_once("::").unwrap_or(("", &name));
            (owner.to_owned(), test.to_owned())
        };
        Some(Row {
            number: number.parse().ok()?,
            tests: names(tests).into_iter().map(pair).collect(),
            faults: names(faults),
            controls: names(controls),
        })
    };
    text.lines().filter_map(row).collect()
}

/// The code of a package and of its tests, put together.
fn code(root: &Path, package: &str) -> anyhow::Result<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for above in ["services", "libs", "tests"] {
        let directory = root.join(above).join(package);
        if directory.is_dir() {
            collect(&directory, &mut files)?;
        }
    }
    let texts = files.iter().map(std::fs::read_to_string);
    Ok(texts.collect::<Result<Vec<String>, _>>()?.concat())
}

/// What a control is: a test of its own, or an entry of the list.
fn control_of<'a>(controls: &'a str, name: &str) -> Option<&'a str> {
    if let Some((_, rest)) = controls.split_once(&format!("fn {name}() {{")) {
        return rest.split("\n}").next();
    }
    let (_, rest) = controls.split_once(&format!("{name}:"))?;
    rest.split(';').next()
}

fn check_row(root: &Path, row: &Row, controls: &str) -> anyhow::Result<Vec<String>> {
    let number = row.number;
    let mut wrong = Vec::new();
    if row.tests.is_empty() {
        wrong.push(format!("failure {number}: no test"));
    }
    for (package, test) in &row.tests {
        if !code(root, package)?.contains(&format!("fn {test}(")) {
            wrong.push(format!("failure {number}: there is no test {package}::{test}"));
        }
    }
    for fault in &row.faults {
        let package = fault.split('.').next().unwrap_or_default().replace('_', "-");
        if !code(root, &package)?.contains(&format!("(\"{fault}\")")) {
            wrong.push(format!("failure {number}: {package} has no fault point {fault}"));
        }
    }
    if row.faults.is_empty() != row.controls.is_empty() {
        wrong.push(format!("failure {number}: a fault point without a control, or the reverse"));
    }
    for control in &row.controls {
        let is_of_row = |entry: &str| {
            let mut faults = row.faults.iter();
            faults.any(|fault| {
                entry.contains(&format!("\"{fault}\"")) || entry.contains(&format!("\"{fault}="))
            })
        };
        if !control_of(controls, control).is_some_and(is_of_row) {
            wrong.push(format!("failure {number}: no control {control} of its fault points"));
        }
    }
    Ok(wrong)
}

/// Checks the table.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let path = root.join("docs/failures.md");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let controls = std::fs::read_to_string(root.join("tests/simulation/tests/controls.rs"))?;
    let rows = rows(&text);
    let mut wrong = Vec::new();
    if !rows.iter().map(|row| row.number).eq(1..=FAILURES) {
        wrong.push(format!("docs/failures.md: not the failures 1 to {FAILURES}, each once"));
    }
    for row in &rows {
        wrong.extend(check_row(root, row, &controls)?);
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_and_others_are_not() {
        let text = "| # | failure | tests | level | fault point | control |\n|---|---|---|---|---|---|\n\
                    | 7 | It is | `log::one`, `director::two` | pure | `log.x` | `a_log` |\n";
        let pair = |owner: &str, test: &str| (owner.to_owned(), test.to_owned());
        let expected = Row {
            number: 7,
            tests: vec![pair("log", "one"), pair("director", "two")],
            faults: vec!["log.x".to_owned()],
            controls: vec!["a_log".to_owned()],
        };
        assert_eq!(rows(text), [expected]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let row = Row {
            number: 1,
            tests: vec![("log".to_owned(), "no_such_test".to_owned())],
            faults: vec!["log.no_such_fault".to_owned()],
            controls: vec!["no_such_control".to_owned()],
        };
        let wrong = check_row(&root, &row, "other: \"log.other\"").expect("code");
        assert_eq!(wrong.len(), 3, "{wrong:?}");
    }
}
