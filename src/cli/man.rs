//! `diffy man`.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_mangen::Man;

use super::output::{Output, print};
use super::{Cli, Outcome};
use crate::error::{Error, Result};

/// Print the manual page, or write those of all commands
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A directory for the pages, made where it is missing; MANPATH/man1 is where `man` looks
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(output: &Output, args: Args) -> Result<Outcome> {
    let Some(dir) = args.dir else {
        let mut page = Vec::new();
        let rendered = Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|source| Error::internal("cannot render the manual page").source(source))?;
        print(&String::from_utf8_lossy(&page))?;
        return Ok(Outcome::Done);
    };
    let written = fs::create_dir_all(&dir).and_then(|()| clap_mangen::generate_to(Cli::command(), &dir));
    written.map_err(|source| {
        Error::remote(format!("cannot write manual pages into `{}`", dir.display())).source(source)
    })?;
    output.say(&format!("wrote the pages into {}", dir.display()));
    Ok(Outcome::Done)
}
