//! Reads SQL statements, limits how deeply they nest, and translates syntax of PostgreSQL that DataFusion does not
//! know.
//!
//! The parser, the planner and the optimizer recurse for each level of an expression, and could overflow the stack. So
//! the levels are counted before anything is parsed. The limits, [`DEEPEST`] operators in a row and [`MOST_QUERIES`]
//! queries and joins in a statement, are far beyond what people write, and fit into the stack that `sql` runs on.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, Ident, Query, SelectItem, SetExpr, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};

use crate::error::{Error, Result};
use crate::stage::LABEL_COLUMNS;

use super::sql_error::explain;

/// The most bytes of a text of statements.
const LONGEST: u64 = 16 << 20;
/// The most operators that depend on each other in an expression, and lists in the FROM clause of a query.
const DEEPEST: usize = 2000;
/// The most queries, joins and set operations of a statement.
const MOST_QUERIES: usize = 1000;
/// The most columns of a CUBE, which groups by every choice of them.
const WIDEST_CUBE: usize = 12;
/// The deepest nesting of parentheses.
const MOST_PARENTHESES: usize = 50;

/// Reads a text of statements from `reader`, which messages call `what`: UTF-8, or UTF-16 that begins with its
/// byte-order mark.
///
/// # Errors
/// Kind `Io` if reading fails, `Input` for a text that is too long or in another encoding.
pub(super) fn read(reader: impl Read, what: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = reader.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|e| Error::io(format!("cannot read {what}")).with_source(e))?;
    if bytes.len() as u64 > LONGEST {
        return Err(Error::input(format!(
            "{what} has more than {LONGEST} bytes, the most that a text of SQL may have"
        )));
    }
    if bytes.starts_with(&[0xff, 0xfe, 0, 0]) || bytes.starts_with(&[0, 0, 0xfe, 0xff]) {
        return Err(Error::input(format!("{what} is UTF-32; save it as UTF-8")));
    }
    let utf16 = match bytes.as_slice() {
        [0xff, 0xfe, ..] => Some(encoding_rs::UTF_16LE),
        [0xfe, 0xff, ..] => Some(encoding_rs::UTF_16BE),
        _ => None,
    };
    if let Some(encoding) = utf16 {
        let (text, malformed) = encoding.decode_with_bom_removal(&bytes);
        return match malformed {
            false => Ok(text.into_owned()),
            true => Err(Error::input(format!("{what} begins as UTF-16 and is not all of it; save it as UTF-8"))),
        };
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let (before, byte) = (&e.as_bytes()[..at], e.as_bytes()[at]);
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
        let column = String::from_utf8_lossy(&before[start..]).chars().count() + 1;
        Error::input(format!(
            "{what}: the byte 0x{byte:02X} at line {line}, column {column} is not UTF-8; save the file as UTF-8"
        ))
    })
}

/// The statements of `text`; `tables` are suggested for unknown tables.
///
/// # Errors
/// Kind `Input`, with line and column, for invalid SQL or too deep nesting.
pub(super) fn parse(text: &str, tables: &[String]) -> Result<VecDeque<Statement>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location();
    let mut tokens = tokens.map_err(|e| explain(ParserError::from(e).into(), text, tables))?;
    check_depth(&tokens)?;
    star_as_name(&mut tokens);
    let parsed = DFParserBuilder::new(tokens)
        .with_dialect(&PostgreSqlDialect {})
        .with_recursion_limit(MOST_PARENTHESES)
        .build()
        .and_then(|mut parser| parser.parse_statements());
    let mut statements = parsed.map_err(|e| explain(e, text, tables))?;
    for statement in &mut statements {
        name_fields(statement)?;
    }
    Ok(statements)
}

/// Checks that the expression `text` is not too deep to be parsed, as in [`parse`].
pub(super) fn check_expression(text: &str) -> Result<()> {
    match Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location() {
        Ok(tokens) => check_depth(&tokens),
        // The parser reports what is wrong.
        Err(_) => Ok(()),
    }
}

/// The content of one pair of parentheses, as far as it was read.
#[derive(Default)]
struct Level {
    /// Operators that bind the parts of an expression into a chain: AND, OR, WHEN.
    links: usize,
    /// Operators since the last of them.
    operators: usize,
    /// The most operators between two of them.
    most: usize,
    /// The depth of the deepest parentheses in this item.
    nested: usize,
    /// The depth of the deepest item of the list that ended.
    deepest: usize,
    /// Whether this is a list of tables, which becomes a chain of joins.
    tables: bool,
}

impl Level {
    fn link(&mut self) {
        self.links += 1;
        self.most = self.most.max(self.operators);
        self.operators = 0;
    }

    /// The depth of what was read.
    fn depth(&self) -> usize {
        self.deepest.max(self.links + self.most.max(self.operators) + self.nested)
    }

    /// Begins the next item of a list.
    fn next_item(&mut self) {
        *self = Self { deepest: self.depth(), tables: self.tables, ..Self::default() };
    }
}

/// Checks that no statement is too deep for the stack.
fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    // The open parentheses, the innermost last.
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::default();
    let mut queries = 0;
    // Whether the previous token is a keyword: in a row of keywords each may be a level, as in INTERVAL INTERVAL.
    let mut after_keyword = false;
    for TokenWithSpan { token, span } in tokens {
        if let Token::Whitespace(_) = token {
            continue;
        }
        let is_keyword =
            matches!(token, Token::Word(Word { keyword, quote_style: None, .. }) if *keyword != Keyword::NoKeyword);
        level.operators += usize::from(is_keyword && after_keyword);
        after_keyword = is_keyword;
        let at = || format!(" at line {}, column {}", span.start.line, span.start.column);
        match token {
            Token::Period | Token::EOF => {}
            Token::SemiColon => {
                outer.clear();
                level = Level::default();
                queries = 0;
            }
            Token::LParen | Token::LBracket => {
                // In a chain of subscripts, each is a level.
                level.operators += usize::from(*token == Token::LBracket);
                outer.push(std::mem::take(&mut level));
            }
            Token::RParen | Token::RBracket => {
                // The parser reports a closing parenthesis too many.
                if let Some(around) = outer.pop() {
                    let depth = level.depth() + 1;
                    level = Level { nested: around.nested.max(depth), ..around };
                }
            }
            Token::Comma if !level.tables => level.next_item(),
            Token::Comma => level.link(),
            Token::Word(Word { keyword, quote_style: None, .. }) => match keyword {
                Keyword::SELECT | Keyword::VALUES => {
                    queries += 1;
                    level.tables = false;
                }
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::JOIN | Keyword::EXPLAIN => {
                    queries += 1
                }
                Keyword::FROM => {
                    level.next_item();
                    level.tables = true;
                }
                Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::LIMIT => {
                    level.next_item();
                    level.tables = false;
                }
                Keyword::AND | Keyword::OR | Keyword::WHEN => level.link(),
                Keyword::NOT | Keyword::IS | Keyword::LIKE | Keyword::ILIKE | Keyword::AT | Keyword::COLLATE => {
                    level.operators += 1;
                }
                Keyword::IN | Keyword::BETWEEN | Keyword::SIMILAR | Keyword::OPERATOR => level.operators += 1,
                _ => {}
            },
            Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::DollarQuotedString(_) => {}
            _ => level.operators += 1,
        }
        if level.depth() > DEEPEST {
            return Err(Error::input(format!(
                "the expression{} has more than {DEEPEST} operators in a row; write IN (...) for a long list of values, \
                 or join a table of them",
                at()
            )));
        }
        if queries > MOST_QUERIES {
            return Err(Error::input(format!(
                "the statement has more than {MOST_QUERIES} queries and joins{}; split it, or put the rows into a file \
                 and read that",
                at()
            )));
        }
    }
    Ok(())
}

/// Replaces the star of `(...).*` by a name, so that the parser reads it as a field; [`name_fields`] finds that name again.
fn star_as_name(tokens: &mut [TokenWithSpan]) {
    let told: Vec<usize> = (0..tokens.len()).filter(|&at| !matches!(tokens[at].token, Token::Whitespace(_))).collect();
    for three in told.windows(3) {
        let [a, b, c] = [three[0], three[1], three[2]];
        if tokens[a].token == Token::RParen && tokens[b].token == Token::Period && tokens[c].token == Token::Mul {
            tokens[c].token = Token::make_word("*", Some('"'));
        }
    }
}

/// Translates `(value).field` of PostgreSQL to `(value).'field'`, which DataFusion reads, and `(dac_assign(...)).*` to
/// the list of its fields.
fn name_fields(statement: &mut Statement) -> Result<()> {
    let found = match statement {
        Statement::Statement(statement) => VisitMut::visit(statement.as_mut(), &mut FieldNames),
        Statement::Explain(explain) => return name_fields(&mut explain.statement),
        _ => return Ok(()),
    };
    match found {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(e) => Err(e),
    }
}

struct FieldNames;

impl VisitorMut for FieldNames {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let mut bodies = vec![query.body.as_mut()];
        while let Some(body) = bodies.pop() {
            match body {
                SetExpr::Select(select) => {
                    let items = std::mem::take(&mut select.projection);
                    select.projection = items.into_iter().flat_map(all_fields).collect();
                    name_items(&mut select.projection);
                }
                SetExpr::SetOperation { left, right, .. } => bodies.extend([left.as_mut(), right.as_mut()]),
                _ => {}
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Cube(columns) = expr
            && columns.len() > WIDEST_CUBE
        {
            return ControlFlow::Break(Error::input(format!(
                "CUBE of {} columns would group the rows in 2^{} ways; at most {WIDEST_CUBE} columns",
                columns.len(),
                columns.len()
            )));
        }
        // If it begins with a name, that may be a table's, as in `c.centroid[1]`, which the planner understands.
        if let Expr::CompoundFieldAccess { root, access_chain } = expr
            && !is_name(root)
        {
            for access in access_chain {
                let AccessExpr::Dot(Expr::Identifier(name)) = access else { continue };
                if is_star(name) {
                    return ControlFlow::Break(Error::input(
                        "(...).* lists the fields of dac_assign alone; name the fields: (...).field",
                    ));
                }
                let field = Value::SingleQuotedString(normalized(name)).with_span(name.span);
                *access = AccessExpr::Dot(Expr::Value(field));
            }
        }
        ControlFlow::Continue(())
    }
}

fn is_star(name: &Ident) -> bool {
    name.value == "*" && name.quote_style == Some('"')
}

/// A name as the planner takes it: in lower case, unless it is quoted.
fn normalized(name: &Ident) -> String {
    match name.quote_style {
        None => name.value.to_lowercase(),
        Some(_) => name.value.clone(),
    }
}

/// The columns of `(dac_assign(...)).*`; any other item is unchanged.
fn all_fields(item: SelectItem) -> Vec<SelectItem> {
    let starred = |chain: &[AccessExpr]| matches!(chain, [AccessExpr::Dot(Expr::Identifier(name))] if is_star(name));
    match &item {
        SelectItem::UnnamedExpr(Expr::CompoundFieldAccess { root, access_chain })
            if starred(access_chain) && is_assignment(root) =>
        {
            let field = |name: &str| SelectItem::ExprWithAlias {
                expr: Expr::CompoundFieldAccess {
                    root: root.clone(),
                    access_chain: vec![AccessExpr::Dot(Expr::Identifier(Ident::new(name)))],
                },
                alias: Ident::new(name),
            };
            LABEL_COLUMNS.iter().map(|name| field(name)).collect()
        }
        _ => vec![item],
    }
}

/// Gives `(value).field` the name that it has in PostgreSQL, `field`, if no other item of the list can have that name.
fn name_items(items: &mut [SelectItem]) {
    let own = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::CompoundFieldAccess { root, access_chain }) => match access_chain.last() {
            Some(AccessExpr::Dot(Expr::Identifier(name))) if !is_name(root) && !is_star(name) => Some(name.clone()),
            _ => None,
        },
        _ => None,
    };
    let name_of = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) | SelectItem::ExprWithAlias { alias: name, .. } => {
            Some(normalized(name))
        }
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(names)) => names.last().map(normalized),
        item => own(item).as_ref().map(normalized),
    };
    if items.iter().any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))) {
        return;
    }
    let names: Vec<Option<String>> = items.iter().map(name_of).collect();
    for item in items {
        let Some(alias) = own(item) else { continue };
        let name = Some(normalized(&alias));
        if names.iter().filter(|other| **other == name).count() == 1
            && let SelectItem::UnnamedExpr(expr) = item
        {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }
}

/// Whether an expression is a column name, alone or qualified by a table name.
fn is_name(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
}

/// Whether an expression is a call of `dac_assign`.
fn is_assignment(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_assignment(inner),
        Expr::Function(Function { name, .. }) => name.to_string().eq_ignore_ascii_case(crate::sql::ASSIGN),
        _ => false,
    }
}
