//! House rules that no compiler checks. The longest file and the longest function are a ratchet:
//! whoever writes a longer one splits it, whoever shortens the longest lowers the number.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The longest file of code, in lines. It may only shrink; the aim is 600.
const LONGEST_FILE: usize = 706;
/// The longest function, in lines. It may only shrink.
const LONGEST_FUNCTION: usize = 75;
/// Where code stands.
const ROOTS: [&str; 6] = ["libs", "services", "apps", "tests", "tools", "examples"];

/// What stands in a file that should not.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: usize,
    what: String,
}

/// A function's name, first line and length.
struct Function {
    name: String,
    line: usize,
    length: usize,
}

/// The functions of a file as rustfmt writes it: from the line with `fn` to the brace that stands
/// as far in.
fn functions(text: &str) -> Vec<Function> {
    let mut open: Vec<(usize, String, usize)> = Vec::new();
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let modifiers = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async ", "unsafe "];
        let mut rest = code;
        while let Some(shorter) = modifiers.iter().find_map(|word| rest.strip_prefix(word)) {
            rest = shorter;
        }
        if let Some(signature) = rest.strip_prefix("fn ") {
            let name = signature.split(['(', '<']).next().unwrap_or_default().to_owned();
            if !(code.ends_with(';') || code.ends_with('}')) {
                open.push((indent, name, index + 1));
            }
        } else if code == "}" && open.last().is_some_and(|(depth, ..)| *depth == indent) {
            let Some((_, name, line)) = open.pop() else { continue };
            found.push(Function { name, line, length: index + 2 - line });
        } else if code.ends_with(';') && open.last().is_some_and(|(depth, ..)| *depth == indent) {
            // The end of a signature without a body.
            open.pop();
        }
    }
    found
}

/// What is wrong with a file of code.
fn faults(text: &str, is_test: bool) -> Vec<Fault> {
    // Put together, so that this file has none of them.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let waived = ["unwrap_used", "expect_used", "disallowed_methods", "unsafe_code"];
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut fault = |what: String| faults.push(Fault { line: index + 1, what });
        for word in words {
            if line.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == word) {
                fault(format!("{word}: open an issue, or do it"));
            }
        }
        let code = line.trim_start();
        // One that another command runs says which.
        if code.starts_with(concat!("#[ig", "nore")) && !code.contains("make ") {
            fault("a test that does not run shows nothing".to_owned());
        }
        if !is_test && (code.starts_with("#[allow(") || code.starts_with("#![allow(")) {
            for lint in waived.iter().filter(|lint| code.contains(**lint)) {
                fault(format!("{lint} may only be waived with #[expect(…, reason = …)]"));
            }
        }
        let mark = code.trim_start_matches('/').trim();
        if code.starts_with("//") && mark.len() > 8 && mark.chars().all(|c| "-=*#".contains(c)) {
            fault("a banner: a module is a better border".to_owned());
        }
    }
    faults
}

/// The files of code below a directory, in the order of their names.
pub(crate) fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(())
}

/// Checks every file of code.
pub(crate) fn tidy() -> anyhow::Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    for name in ROOTS {
        collect(&root.join(name), &mut files)?;
    }
    let mut wrong = Vec::new();
    let (mut longest_file, mut longest_function) = (0, 0);
    for path in &files {
        let shown = path.strip_prefix(&root).unwrap_or(path).display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| shown.clone())?;
        let lines = text.lines().count();
        longest_file = longest_file.max(lines);
        if lines > LONGEST_FILE {
            wrong.push(format!("{shown}: {lines} lines, more than {LONGEST_FILE}: split it"));
        }
        for Function { name, line, length } in functions(&text) {
            longest_function = longest_function.max(length);
            if length > LONGEST_FUNCTION {
                let limit = LONGEST_FUNCTION;
                wrong.push(format!("{shown}:{line}: {name} has {length} lines, more than {limit}"));
            }
        }
        let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
        if is_root && !text.starts_with("//!") {
            wrong.push(format!("{shown}: does not open by saying what the crate is"));
        }
        let is_test = path.components().any(|part| part.as_os_str() == "tests");
        wrong.extend(
            faults(&text, is_test)
                .iter()
                .map(|Fault { line, what }| format!("{shown}:{line}: {what}")),
        );
    }
    wrong.extend(crate::failures::check(&root)?);
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!(
        "{} files; the longest has {longest_file} lines of {LONGEST_FILE}, the longest function \
         {longest_function} of {LONGEST_FUNCTION}",
        files.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_tidy() {
        tidy().expect("tidy");
    }

    #[test]
    fn each_rule_is_seen_to_be_broken() {
        let broken = [
            concat!("// TO", "DO: later"),
            concat!("    #[ig", "nore]"),
            "#[allow(clippy::unwrap_used)]",
            "// ------------",
        ];
        for text in broken {
            assert_eq!(faults(text, false).len(), 1, "{text}");
        }
        let fine = ["// - a list", "let todo = 1;", "//! # Errors", "#[allow(dead_code)]"];
        for text in fine {
            assert_eq!(faults(text, false), [], "{text}");
        }
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let text = "impl A {\n    pub(crate) async fn one(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n\n    fn declared();\n}\n\nfn two() {\n    if true {\n    }\n}\n";
        let found: Vec<_> =
            functions(text).into_iter().map(|f| (f.name, f.line, f.length)).collect();
        assert_eq!(found, [("one".to_owned(), 2, 5), ("two".to_owned(), 11, 4)]);
    }
}
