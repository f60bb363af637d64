import { createHash } from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { schema } from "../../src/sql/schema/schema.ts"

const table = (name: string) => `"chicory_${name}"`

/**
 * What each step of a schema comes to. The steps of a version that was published stay as they are, for they were
 * applied; whatever a change to the code makes of one of them belongs into a step of its own.
 */
const published = {
  postgres: ["470c7145dbc71e26"],
  mysql: ["3181cd82d4ca049f"],
  sqlite: ["61bf8ab88c452b10"]
}

describe("the schema", () => {
  for (const dialect of ["postgres", "mysql", "sqlite"] as const) {
    it(`on ${dialect} has the steps that it had`, () => {
      const steps = schema[dialect].map(({ statements }) =>
        createHash("sha256").update(statements(table).join(";\n")).digest("hex").slice(0, 16)
      )
      assert.deepStrictEqual(steps.slice(0, published[dialect].length), published[dialect])
      assert.deepStrictEqual(
        schema[dialect].map(({ id }) => id),
        steps.map((_, index) => index + 1)
      )
    })
  }
})
