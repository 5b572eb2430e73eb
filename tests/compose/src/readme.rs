//! The README's commands, taken from it as they stand there.

use anyhow::{Context as _, ensure};

/// The section about containers.
const SECTION: &str = "## In containers";

/// The lines of code in the README's section about containers.
///
/// # Errors
/// There is no such section, or no line in it.
pub fn commands(readme: &str) -> anyhow::Result<Vec<String>> {
    let (_, section) = readme
        .split_once(&format!("{SECTION}\n"))
        .with_context(|| format!("the README has no section {SECTION:?}"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let code = section.lines().filter_map(|line| line.strip_prefix("    "));
    let commands: Vec<String> =
        code.map(|line| line.split("  #").next().unwrap_or_default().trim().to_owned()).collect();
    ensure!(!commands.is_empty(), "the README's section {SECTION:?} has no commands");
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_the_one_section_without_its_comments() {
        let readme = "# X\n\n    no\n\n## In containers\n\n    curl a   # b\n    curl c#d\n\nText\n\n## Y\n\n    no\n";
        assert_eq!(commands(readme).unwrap(), ["curl a", "curl c#d"]);
        assert!(commands("# X\n").is_err());
    }
}
