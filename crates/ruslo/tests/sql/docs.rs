//! The SQL in `docs/sql/*.md` and its folders: every fenced `sql` block is run, so that no example there is wrong.
//!
//! A comment on the line before a fence says what the block is:
//!
//! | comment | the block is |
//! |---|---|
//! | `<!-- file data/bid.json -->` | a file, below the folder that scripts see as the working one |
//! | `<!-- tables -->` | statements that stand before every later block of the page |
//! | `<!-- fragment -->` | not run |
//! | `<!-- refused -->` | statements, one a line, each with the sentence that refuses it behind `--` |
//! | none | a script; the `text` block right behind it, if there is one, is what it prints or what EXPLAIN shows |

use std::path::Path;

use ruslo_core::environment::Environment;
use ruslo_core::rng::Rng;
use ruslo_sql::JobKind;

use crate::world::{Phases, Shape, World, finish, temporary};

const SHAPE: Shape = Shape { parallelism: 1, batch_rows: None, phases: Phases::Script };

/// A fenced block.
#[derive(Debug, Default)]
struct Block {
    comment: String,
    language: String,
    text: String,
    line: usize,
    /// Whether only blank lines stand between it and the block before.
    follows: bool,
}

/// Runs the blocks of every page in `folder` and below; what was wrong.
pub(crate) fn check(folder: &Path) -> Vec<String> {
    let mut failures = Vec::new();
    let (mut folders, mut pages) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "md") => pages.push(path),
                false => {}
            }
        }
    }
    pages.sort();
    assert!(!pages.is_empty(), "no page in {}", folder.display());
    for page in pages {
        let name = page.strip_prefix(folder).unwrap().display();
        let found = check_page(&std::fs::read_to_string(&page).unwrap());
        failures.extend(found.into_iter().map(|failure| format!("docs/sql/{name} {failure}")));
    }
    failures
}

fn check_page(text: &str) -> Vec<String> {
    let folder = temporary();
    let blocks = blocks(text);
    let mut tables = String::new();
    let mut failures = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        if let Some(name) = block.comment.strip_prefix("file ") {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &block.text).unwrap();
        }
        if block.language != "sql" || block.comment == "fragment" {
            continue;
        }
        let shown = blocks.get(index + 1).filter(|next| next.follows && next.language == "text");
        let found = match block.comment.as_str() {
            "tables" => {
                tables.push_str(&block.text);
                run(&tables, folder.path()).map(drop)
            }
            "refused" => refused(&tables, &block.text, folder.path()),
            _ => run(&format!("{tables}{}", block.text), folder.path())
                .and_then(|printed| shown.map_or(Ok(()), |shown| compare(&printed, &shown.text))),
        };
        failures.extend(found.err().map(|error| format!("line {}: {error}", block.line)));
    }
    failures
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut open, mut comment, mut follows) = (false, String::new(), false);
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open) {
            (Some(language), false) => {
                let (language, comment) = (language.to_owned(), std::mem::take(&mut comment));
                blocks.push(Block { comment, language, line: index + 1, follows, ..Block::default() });
                open = true;
            }
            (Some(_), true) => (open, follows) = (false, true),
            (None, true) => blocks.last_mut().unwrap().text.extend([line, "\n"]),
            (None, false) => {
                let said = line.trim().strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"));
                comment = said.unwrap_or_default().to_owned();
                follows &= line.trim().is_empty();
            }
        }
    }
    blocks
}

/// The page's relative paths as paths below `folder`.
fn placed(text: &str, folder: &Path) -> String {
    let folder = folder.to_str().unwrap();
    text.replace("'data/", &format!("'{folder}/data/")).replace("'out/", &format!("'{folder}/out/"))
}

/// Runs a script; what it prints, or what EXPLAIN shows.
pub(crate) fn run(text: &str, folder: &Path) -> Result<String, String> {
    let text = placed(text, folder);
    let world = World::new("docs", &text, folder);
    let planned = world.plan(SHAPE, 0, &Environment::local()).map_err(|error| error.to_string())?;
    match planned.kind {
        JobKind::Nothing => Ok(planned.output),
        JobKind::Explain => Ok(planned.explain),
        JobKind::Insert | JobKind::Select if planned.batch.is_some() => {
            world.run_in_batch(SHAPE).map(|_| world.printed()).map_err(|error| error.to_string())
        }
        JobKind::Insert | JobKind::Select => {
            let mut job = world.job(SHAPE, 0, &mut Rng::seeded(1)).map_err(|error| error.to_string())?;
            finish(&mut job).map_err(|error| error.to_string())?;
            Ok(world.printed())
        }
    }
}

/// Each line is a statement and, behind `--`, a part of the sentence that refuses it.
fn refused(tables: &str, text: &str, folder: &Path) -> Result<(), String> {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (statement, sentence) = line.rsplit_once("--").ok_or_else(|| format!("no sentence behind '{line}'"))?;
        let script = placed(&format!("{tables}{statement}"), folder);
        match World::new("docs", &script, folder).plan(SHAPE, 0, &Environment::local()) {
            Ok(_) => return Err(format!("'{statement}' is not refused")),
            Err(error) if error.to_string().contains(sentence.trim()) => {}
            Err(error) => return Err(format!("'{statement}' is refused by another sentence:\n{error}")),
        }
    }
    Ok(())
}

fn compare(printed: &str, shown: &str) -> Result<(), String> {
    let lines = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.retain(|line| !line.is_empty());
        lines.sort();
        lines
    };
    if lines(printed) == lines(shown) { Ok(()) } else { Err(format!("prints\n{printed}\ninstead of\n{shown}")) }
}
