//! Attribute names of database exchanges (OpenTelemetry semantic conventions, database, stable).

use crate::model::Key;

/// Product: `postgresql`, `redis`.
pub const SYSTEM: Key = "db.system.name";
/// Database (PostgreSQL), database index (Redis).
pub const NAMESPACE: Key = "db.namespace";
/// Operation or command.
pub const OPERATION: Key = "db.operation.name";
/// Table.
pub const COLLECTION: Key = "db.collection.name";
/// Text without values.
pub const QUERY_TEXT: Key = "db.query.text";
/// Operations and targets.
pub const QUERY_SUMMARY: Key = "db.query.summary";
/// SQLSTATE or error prefix.
pub const STATUS_CODE: Key = "db.response.status_code";
/// Rows that the statement returned.
pub const RETURNED_ROWS: Key = "db.response.returned_rows";
