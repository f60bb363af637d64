/**
 * Results and messages in a SQL database, on Effect's `SqlClient`: PostgreSQL, MariaDB, SQLite.
 */

/** Results alone. */
export * as SqlBackend from "./SqlBackend.ts"

/** Messages alone. */
export * as SqlBroker from "./SqlBroker.ts"

/** Results and messages in one database. */
export * as SqlStore from "./SqlStore.ts"
