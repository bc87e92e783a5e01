//! Summary of a statement from its syntax tree.

use std::ops::ControlFlow;

use sqlparser::ast::{
    CopySource, ObjectName, ObjectType, Query, Select, Statement, TableFactor, Visit, Visitor,
};
use sqlparser::dialect::{Dialect as SqlDialect, MySqlDialect, PostgreSqlDialect};
use sqlparser::parser::Parser;

use super::lexer::Dialect;
use super::summary::Summary;

/// How deep statements may nest. The parser's own default is 50; its frames are large and statements that people write
/// nest less than half of this.
const MAX_DEPTH: usize = 30;

/// Adds what the one statement in `text` does to `summary`. False, with `summary` unchanged, if the parser does not
/// know it or its tree tells less than its tokens.
pub fn parse(text: &str, dialect: Dialect, summary: &mut Summary) -> bool {
    let postgresql = PostgreSqlDialect {};
    let mysql = MySqlDialect {};
    let dialect: &dyn SqlDialect = match dialect {
        Dialect::PostgreSql => &postgresql,
        Dialect::MySql => &mysql,
    };
    let parser = Parser::new(dialect)
        .with_recursion_limit(MAX_DEPTH)
        .try_with_sql(text);
    let Ok(statement) = parser.and_then(|mut parser| parser.parse_statement()) else {
        return false;
    };
    if !tells_more(&statement) {
        return false;
    }
    let before = summary.operations();
    let mut walk = Walk {
        summary,
        ctes: Vec::new(),
        call: false,
    };
    let _ = statement.visit(&mut walk);
    summary.operations() > before
}

/// The statements whose trees name their relations.
fn tells_more(statement: &Statement) -> bool {
    match statement {
        Statement::Query(_)
        | Statement::Insert(_)
        | Statement::Update(_)
        | Statement::Delete(_)
        | Statement::Merge(_)
        | Statement::CreateTable(_)
        | Statement::Copy { .. } => true,
        Statement::Drop { object_type, .. } => matches!(object_type, ObjectType::Table | ObjectType::View),
        Statement::Explain { statement, .. } => tells_more(statement),
        _ => false,
    }
}

struct Walk<'a> {
    summary: &'a mut Summary,
    /// Names that WITH has given: they are no collections.
    ctes: Vec<String>,
    /// The next relation is a function.
    call: bool,
}

impl Walk<'_> {
    fn target(&mut self, name: &ObjectName) {
        let mut text = String::new();
        for part in &name.0 {
            if !text.is_empty() {
                text.push('.');
            }
            match part.as_ident() {
                Some(ident) => text.push_str(&ident.value),
                None => return,
            }
        }
        if !self.ctes.iter().any(|cte| cte.eq_ignore_ascii_case(&text)) {
            self.summary.target(&text);
        }
    }
}

impl Visitor for Walk<'_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<()> {
        match statement {
            Statement::Insert(insert) => {
                self.summary
                    .operation(if insert.replace_into { "REPLACE" } else { "INSERT" });
            }
            Statement::Update(_) => self.summary.operation("UPDATE"),
            Statement::Delete(_) => self.summary.operation("DELETE"),
            Statement::Merge(_) => self.summary.operation("MERGE"),
            Statement::Explain { .. } => self.summary.operation("EXPLAIN"),
            Statement::CreateTable(_) => self.summary.operation("CREATE TABLE"),
            Statement::Drop {
                object_type, names, ..
            } => {
                self.summary.operation(if *object_type == ObjectType::View {
                    "DROP VIEW"
                } else {
                    "DROP TABLE"
                });
                names.iter().for_each(|name| self.target(name));
            }
            Statement::Copy { source, .. } => {
                self.summary.operation("COPY");
                if let CopySource::Table { table_name, .. } = source {
                    self.target(table_name);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if let Some(with) = &query.with {
            self.ctes
                .extend(with.cte_tables.iter().map(|cte| cte.alias.name.value.clone()));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.summary.operation("SELECT");
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        self.call = matches!(factor, TableFactor::Table { args: Some(_), .. });
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if !std::mem::take(&mut self.call) {
            self.target(relation);
        }
        ControlFlow::Continue(())
    }
}
