//! Puts the scenario and adapter files into the binary, so that `dtls-lab` works from any folder.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    put_in("scenarios")?;
    put_in("adapters")
}

/// Writes the list of a folder's TOML files, each with its name and text.
fn put_in(folder: &str) -> io::Result<()> {
    println!("cargo::rerun-if-changed={folder}");
    let mut files: Vec<_> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    let mut list = String::from("&[\n");
    for file in files
        .iter()
        .filter(|file| file.extension().is_some_and(|it| it == "toml"))
    {
        let path = fs::canonicalize(file)?;
        writeln!(list, "    ({file:?}, include_str!({path:?})),").map_err(io::Error::other)?;
    }
    list.push_str("]\n");
    let out = env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?;
    fs::write(Path::new(&out).join(format!("{folder}.rs")), list)
}
