import type { Dialect } from "./Dialect.ts"
export const mysqlDialect: Dialect | undefined = undefined
