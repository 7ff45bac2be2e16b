//! Tidiness that no lint knows: which way the crates depend, that every file says what it is, and that
//! nothing of the machine it was written on is left in it. Each rule is a function of a file's name and text,
//! and has a test that shows it can fail.
use std::{collections::BTreeMap, fs, path::Path, process::Command};

use crate::Failed;

/// What each crate may depend on of the workspace.
const EDGES: &[(&str, &[&str])] = &[
    // (Itself: its tests need its testkit.)
    ("checkpoint", &["tidegate-checkpoint", "tidegate-testbed"]),
    ("core", &["tidegate-checkpoint"]),
    ("state-backends", &["tidegate-checkpoint", "tidegate-core", "tidegate-testbed"]),
    ("connectors", &["tidegate-checkpoint", "tidegate-core", "tidegate-testbed"]),
    (".", &["tidegate-checkpoint", "tidegate-core", "tidegate-state", "tidegate-connectors", "tidegate-testbed"]),
    ("bench", &["tidegate", "tidegate-testbed"]),
    ("testbed", &[]),
    ("xtask", &["tidegate-testbed"]),
];
const LINES_MAX: usize = 600;

/// Checks every file that git knows.
pub fn check(root: &Path) -> Result<(), Failed> {
    let listed =
        Command::new("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root).output();
    let listed = listed.map_err(|e| format!("git cannot be started: {e}"))?;
    // Of nothing, everything is tidy.
    if !listed.status.success() || listed.stdout.is_empty() {
        return Err(format!("tidiness: git lists no files: {}", String::from_utf8_lossy(&listed.stderr).trim()));
    }
    let mut complaints = Vec::new();
    let mut manifests = BTreeMap::new();
    for name in String::from_utf8_lossy(&listed.stdout).lines() {
        let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
        complaints.extend(rules(name, &text).into_iter().map(|why| format!("{name}: {why}")));
        if name.ends_with(".md") {
            let folder = Path::new(name).parent().unwrap_or(Path::new(""));
            let dead = links(&text).into_iter().filter(|link| !root.join(folder).join(link).exists());
            complaints.extend(dead.map(|link| format!("{name}: the link {link} leads nowhere")));
        }
        if let Some(folder) = name.strip_suffix("Cargo.toml") {
            manifests.insert(folder.trim_end_matches('/').to_owned(), text);
        }
    }
    for (folder, manifest) in &manifests {
        complaints.extend(edges(if folder.is_empty() { "." } else { folder }, manifest));
    }
    if complaints.is_empty() { Ok(()) } else { Err(format!("tidiness:\n  {}", complaints.join("\n  "))) }
}

/// Where unsafe code may be, each for a measured gain.
const UNSAFE: [&str; 3] =
    ["core/src/state/prefetch.rs", "connectors/src/kafka/native.rs", "bench/src/kafka/batches.rs"];

fn rules(name: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |why: &str| complaints.push(why.to_owned());
    // In two pieces, so that this file does not accuse itself.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("dbg", "!("), concat!("todo", "!(")];
    if name.ends_with(".rs") {
        if !text.starts_with("//!") {
            complain("does not begin with a header (//!) that says what it is and why");
        }
        if text.lines().count() > LINES_MAX {
            complain("has more than 600 lines: split it");
        }
        if let Some(word) = words.iter().find(|w| text.contains(**w)) {
            complain(&format!("has a {word} in it: do it, or open an issue"));
        }
        let is_unsafe = text.contains(concat!("unsafe", " {")) || text.contains(concat!("unsafe", " fn"));
        if is_unsafe && !UNSAFE.contains(&name) {
            complain("has unsafe code, which lives in few small modules: xtask/src/tidy.rs knows them");
        }
    }
    let foreign = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    if name != "Cargo.lock"
        && let Some(path) = foreign.iter().find(|p| text.contains(**p))
    {
        complain(&format!("has a path of somebody's machine in it ({path})"));
    }
    complaints
}

/// Dependencies, development ones too, go one way.
fn edges(folder: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = EDGES.iter().find(|(f, _)| *f == folder) else {
        return vec![format!("{folder}: a new crate: say in xtask/src/tidy.rs what it may depend on")];
    };
    let mut in_dependencies = false;
    let mut complaints = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies") && !line.contains("workspace");
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if in_dependencies && name.starts_with("tidegate") && !allowed.contains(&name) {
            complaints.push(format!("{folder}: must not depend on {name}"));
        }
    }
    complaints
}

/// Relative links of a Markdown text, without their fragments.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
    targets.filter(|t| !t.is_empty() && !t.contains(':') && !t.contains(' ')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let root = crate::root().unwrap();
        check(&root).unwrap();
    }

    #[test]
    fn each_rule_can_fail() {
        assert!(rules("a.rs", "//! Good.\nfn f() {}\n").is_empty());
        let bad = [
            "fn f() {}\n".to_owned(),
            format!("//! Long.\n{}", "\n".repeat(700)),
            concat!("//! H.\n// TO", "DO\n").to_owned(),
            concat!("//! H.\nunsafe", " { }\n").to_owned(),
            concat!("//! H.\n// /ho", "me/me\n").to_owned(),
        ];
        for text in bad {
            assert_eq!(rules("a.rs", &text).len(), 1, "{text:.40}");
        }
        assert!(rules(UNSAFE[0], concat!("//! H.\nunsafe", " { }\n")).is_empty());
    }

    #[test]
    fn dependencies_go_one_way() {
        let manifest = "[dependencies]\ntidegate-core.workspace = true\nserde = \"1\"\n";
        assert!(edges("connectors", manifest).is_empty());
        assert_eq!(edges("checkpoint", manifest).len(), 1);
        assert_eq!(edges("connectors", "[dev-dependencies]\ntidegate-state = \"1\"\n").len(), 1);
        assert_eq!(edges("new", "").len(), 1);
    }

    #[test]
    fn only_relative_links_are_looked_at() {
        assert_eq!(links("[a](b.md#c) [d](https://e.f) [g](h/i.rs) [j](#k)"), ["b.md", "h/i.rs"]);
    }
}
