//! libclang, with which the bindings of RocksDB are made: looked for before the build, which would notice after
//! minutes.
//!
//! It is no Rust tool, so it is not fetched into the cache folder: where this is Debian and we are root, as in a
//! container, it is installed; else it is said how.
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::Failed;

const PACKAGE: &str = "libclang-dev";

/// Makes sure that it is there.
pub fn prepare() -> Result<(), Failed> {
    // Elsewhere it comes with the compiler, and bindgen knows the places.
    if !cfg!(target_os = "linux") || env::var_os("LIBCLANG_PATH").is_some() || is_below(&places()) {
        return Ok(());
    }
    if prints("id", "-u").as_deref() == Some("0") && prints("apt-get", "--version").is_some() {
        println!("== libclang is not installed: apt-get install -y {PACKAGE}");
        // On a fresh machine nothing is known of packages yet.
        let install = || succeeds(&["install", "-y", PACKAGE]);
        if (install() || (succeeds(&["update"]) && install())) && is_below(&places()) {
            return Ok(());
        }
    }
    Err(format!(
        "libclang is needed to build RocksDB and is not here: as root, apt-get install {PACKAGE} (Debian, Ubuntu) or \
         dnf install clang-devel (Fedora); or say where it is in LIBCLANG_PATH"
    ))
}

fn places() -> Vec<PathBuf> {
    ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from).into()
}

/// In one of these folders, in a folder in it, or in `lib` of that: `/usr/lib/llvm-14/lib/libclang.so`.
fn is_below(places: &[PathBuf]) -> bool {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_it = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A dangling link is none.
        name.starts_with("libclang") && !name.starts_with("libclang-cpp") && name.contains(".so") && path.exists()
    };
    let holds = |folder: &Path| entries(folder).any(is_it);
    places.iter().any(|place| holds(place) || entries(place).any(|inner| holds(&inner) || holds(&inner.join("lib"))))
}

fn prints(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn succeeds(arguments: &[&str]) -> bool {
    let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_where_distributions_put_it_and_nothing_else_is_taken_for_it() {
        let root = env::temp_dir().join(format!("tidegate-xtask-libclang-{}", std::process::id()));
        let file = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let found = || is_below(&[root.join("no-such-folder"), root.clone()]);
        file("x86_64-linux-gnu/libclang-cpp.so.14");
        file("libclang.txt");
        assert!(!found());
        for name in ["llvm-14/lib/libclang.so.1", "x86_64-linux-gnu/libclang-14.so.14", "libclang.so"] {
            let path = file(name);
            assert!(found(), "{name}");
            fs::remove_file(path).unwrap();
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
