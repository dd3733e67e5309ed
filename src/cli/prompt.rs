//! The prompt of `dacpipe sql`: statements over several lines until `;`, with a saved history.

use std::io::Write;
use std::path::PathBuf;

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::error::{Error, Result};
use crate::terminal::{self, Output, one_line};

use super::sql::Session;

const HELP: &str = "\
  statements end with ;      \\d         the tables
  \\d NAME  its columns       \\q         leave";

/// Reads and runs statements until the end of input or `\q`. Errors are shown, and the prompt goes on.
pub(crate) async fn run<W: Write>(session: &Session, out: &mut Output<W>) -> Result<()> {
    let mut editor = DefaultEditor::new().map_err(|e| Error::io("cannot open the terminal").with_source(e))?;
    let history = history_file();
    if let Some(path) = &history {
        // A missing or unreadable history does not prevent the prompt.
        let _ = editor.load_history(path);
    }
    terminal::say(&format!("{}\n{HELP}", tables(session)))?;
    let mut statement = String::new();
    loop {
        let sign = if statement.is_empty() { "dacpipe> " } else { "      -> " };
        let read = tokio::task::spawn_blocking(move || {
            let line = editor.readline(sign);
            (editor, line)
        });
        let line;
        (editor, line) = read.await.map_err(|e| Error::internal("the prompt ended").with_source(e))?;
        match line {
            Ok(line) if statement.is_empty() && line.trim().is_empty() => {}
            Ok(line) if statement.is_empty() && is_command(&line) => {
                let _ = editor.add_history_entry(line.trim());
                if !command(session, line.trim(), out).await? {
                    break;
                }
            }
            // A command is also accepted within a statement, of which it could not be a useful part, but not in a
            // string or a comment.
            Ok(line) if leaves(&line) && !is_quoted(&statement) => break,
            Ok(line) => {
                statement.push_str(&line);
                if is_complete(&statement) {
                    let _ = editor.add_history_entry(statement.as_str());
                    show_error(interruptible(session, &statement, out).await);
                    statement.clear();
                } else {
                    statement.push('\n');
                }
            }
            Err(ReadlineError::Interrupted) => statement.clear(),
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(Error::io("reading the terminal").with_source(e)),
        }
    }
    if let Some(path) = &history {
        if let Some(dir) = path.parent() {
            let _ = std::fs::create_dir_all(dir);
        }
        // Writing through a link would overwrite the file that it leads to.
        if !path.is_symlink() {
            let _ = editor.save_history(path);
        }
    }
    Ok(())
}

/// Runs a statement until it is done or Ctrl-C is pressed; dropping the query's stream stops it.
async fn interruptible<W: Write>(session: &Session, statement: &str, out: &mut Output<W>) -> Result<()> {
    tokio::select! {
        result = session.run(statement, out) => result,
        _ = tokio::signal::ctrl_c() => Err(Error::cancelled("interrupted")),
    }
}

fn show_error(result: Result<()>) {
    if let Err(e) = result {
        terminal::tell(&format!("error: {e}"));
    }
}

fn is_command(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('\\') || leaves(line) || line == "help"
}

/// Whether a line asks to quit.
fn leaves(line: &str) -> bool {
    matches!(line.trim().trim_end_matches(';').trim_end(), "\\q" | "exit" | "quit")
}

/// Runs a command of the prompt; false to quit.
async fn command<W: Write>(session: &Session, line: &str, out: &mut Output<W>) -> Result<bool> {
    match line.split_once(char::is_whitespace).unwrap_or((line, "")) {
        _ if leaves(line) => return Ok(false),
        ("\\d", "") => terminal::say(&tables(session))?,
        ("\\d", name) => {
            let name = name.trim().trim_end_matches(';');
            let describe = format!("DESCRIBE \"{}\"", name.trim_matches('"').replace('"', "\"\""));
            show_error(session.run(&describe, out).await);
        }
        ("\\?" | "\\h" | "help", _) => terminal::say(HELP)?,
        (other, _) => terminal::tell(&format!("error: no command {other}; there are\n{HELP}")),
    }
    Ok(true)
}

fn tables(session: &Session) -> String {
    if session.tables.is_empty() {
        return "no tables; dacpipe run makes one, --table NAME=PATH names one".into();
    }
    let names: Vec<String> = session.tables.iter().map(|table| one_line(&as_typed(&table.name)).into_owned()).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let lines = names.iter().zip(&session.tables).map(|(name, table)| format!("  {name:width$}  {}", table.location));
    lines.collect::<Vec<_>>().join("\n")
}

/// A name as it is typed in SQL: in quotes unless it is small letters, digits and underscores.
pub(super) fn as_typed(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// Whether `text` ends inside a string, a quoted name or a comment.
fn is_quoted(text: &str) -> bool {
    Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().is_err()
}

/// True if the last thing in `text` is a `;` outside of quotes and comments.
fn is_complete(text: &str) -> bool {
    match Tokenizer::new(&PostgreSqlDialect {}, text).tokenize() {
        Ok(tokens) => {
            let last = tokens.iter().rfind(|token| !matches!(token, Token::Whitespace(_)));
            matches!(last, Some(Token::SemiColon))
        }
        // An open quote or comment may be closed on the next line; anything else the parser explains better.
        Err(e) => !e.message.starts_with("Unterminated") && !e.message.starts_with("Unexpected EOF"),
    }
}

fn history_file() -> Option<PathBuf> {
    let state = match std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".local/state"),
    };
    Some(state.join("dacpipe").join("sql_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are_typed() {
        assert_eq!(as_typed("hapt_clusters"), "hapt_clusters");
        assert_eq!(as_typed("fashion-mnist"), "\"fashion-mnist\"");
        assert_eq!(as_typed("Hapt"), "\"Hapt\"");
        assert_eq!(as_typed("2nd"), "\"2nd\"");
    }

    #[test]
    fn a_line_may_leave_within_a_statement_but_not_within_a_string() {
        assert!(["\\q", " exit ", "quit;", "exit"].into_iter().all(leaves));
        assert!(!["\\d", "exit code", "SELECT exit"].into_iter().any(leaves));
        assert!(!is_quoted("SELECT a\n") && !is_quoted("SELECT 'a', \"b\" -- c\n"));
        assert!(is_quoted("SELECT 'a\n") && is_quoted("SELECT \"a\n") && is_quoted("SELECT /* a\n"));
    }

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_of_quotes() {
        for complete in ["SELECT 1;", "SELECT ';';  ", "SELECT 1; -- done\n"] {
            assert!(is_complete(complete), "{complete:?}");
        }
        for open in ["SELECT 1", "SELECT ';", "SELECT 1 -- done;", "SELECT /* ;"] {
            assert!(!is_complete(open), "{open:?}");
        }
    }
}
