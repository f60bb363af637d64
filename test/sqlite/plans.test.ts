import { DatabaseSync } from "node:sqlite"
import { afterAll, assert, describe, it, vi } from "@effect/vitest"
import { Effect } from "effect"
import * as SqliteStore from "../../src/sqlite/SqliteStore.ts"
import { everything } from "../sql/allOperations.ts"
import { temporaryFile } from "./temporary.ts"

const texts = new Set<string>()
// oxlint-disable-next-line typescript/unbound-method
const prepare = DatabaseSync.prototype.prepare
vi.spyOn(DatabaseSync.prototype, "prepare").mockImplementation(function (this: DatabaseSync, text, options) {
  texts.add(text)
  return prepare.call(this, text, options)
})
afterAll(() => void vi.restoreAllMocks())

describe("sqlite: query plans", () => {
  it.live("no statement scans the tasks or the messages, and none sorts them", () =>
    Effect.gen(function* () {
      const filename = yield* temporaryFile
      yield* Effect.flatMap(SqliteStore.makeDrivers({ filename }), everything)
      const database = new DatabaseSync(filename)
      yield* Effect.addFinalizer(() => Effect.sync(() => database.close()))
      const statements = [...texts].filter(
        (text) => /^(SELECT|INSERT|UPDATE|DELETE)/.test(text) && !/COUNT|_schema/.test(text)
      )
      assert.isAbove(statements.length, 30)
      for (const text of statements) {
        const plan = prepare
          .call(database, `EXPLAIN QUERY PLAN ${text}`)
          .all()
          .map((row) => String(row["detail"]))
        for (const step of plan) {
          assert.notMatch(
            step,
            /^SCAN (chicory_(tasks|messages|dead_letters)|t|m)\b(?!.*INDEX)/,
            `${text}\n${plan.join("\n")}`
          )
          assert.notMatch(
            step,
            /^SCAN .*USING (COVERING )?INDEX chicory_(tasks|messages)/,
            `${text}\n${plan.join("\n")}`
          )
        }
        if (text.includes("ORDER BY priority") && !text.includes("UNION")) {
          assert.isFalse(
            plan.some((step) => step.includes("TEMP B-TREE")),
            plan.join("\n")
          )
        }
      }
    })
  )
})
