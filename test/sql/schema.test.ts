import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { SqlStore } from "chicory/sql"
import { schema } from "../../src/sql/schema/schema.ts"

const table = (name: string) => `"chicory_${name}"`

/**
 * The hashes of the migrations. A published migration never changes, since it was applied to databases: a change to the
 * schema is a new migration.
 */
const published = {
  postgres: ["1d8f2a068a519023"],
  mysql: ["b9af396c78628913"],
  sqlite: ["647315f4d1495f5f"]
}

describe("sql: the schema", () => {
  for (const dialect of ["postgres", "mysql", "sqlite"] as const) {
    it(`keeps its published migrations on ${dialect}`, () => {
      const steps = schema[dialect].map(({ statements }) =>
        createHash("sha256").update(statements(table).join(";\n")).digest("hex").slice(0, 16)
      )
      assert.deepStrictEqual(steps.slice(0, published[dialect].length), published[dialect])
      assert.deepStrictEqual(
        schema[dialect].map(({ id }) => id),
        steps.map((_, index) => index + 1)
      )
    })

    it(`needs no newer code than that of the step itself on ${dialect}`, () => {
      for (const { id, needs } of schema[dialect]) assert.isAtMost(needs, id)
    })

    it(`has a script for ${dialect} that leaves out the steps which were applied`, () => {
      const all = SqlStore.migrations(dialect)
      const applied = schema[dialect].length
      assert.strictEqual(SqlStore.migrations(dialect, { from: 0 }), all)
      assert.strictEqual(SqlStore.migrations(dialect, { from: applied }), "")
    })
  }
})
