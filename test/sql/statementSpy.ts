import { Effect } from "effect"
import type { SqlClient } from "effect/sql"

/** A statement that was sent, with its last parameters. */
export interface Asked {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
}

/** A statement that was answered, and the characters of all texts that it returned. */
export interface Answered {
  readonly text: string
  readonly returned: number
}

const textsOf = (rows: ReadonlyArray<object>): number =>
  rows
    .flatMap((row) => Object.values(row))
    .reduce<number>((sum, value) => sum + (typeof value === "string" ? value.length : 0), 0)

/**
 * Returns a client that records the statements it is sent, each text once in `asked`, and all in `answered`. `hook.before`
 * runs before each statement.
 */
export const spyOn = <Client extends SqlClient.SqlClient>(client: Client) => {
  const asked = new Map<string, Asked>()
  const answered: Array<Answered> = []
  const hook = { before: (_text: string): Effect.Effect<unknown, unknown> => Effect.void }
  const spied: SqlClient.SqlClient = Object.assign(
    (...args: Parameters<SqlClient.SqlClient>) => client(...args),
    client,
    {
      withoutTransforms: () => spied,
      unsafe: (text: string, params: ReadonlyArray<unknown> = []) =>
        Effect.suspend(() => {
          asked.set(text, { text, params })
          return hook.before(text)
        }).pipe(
          Effect.andThen(client.unsafe<object>(text, params)),
          Effect.tap((rows) => Effect.sync(() => answered.push({ text, returned: textsOf(rows) })))
        )
    }
  ) as never
  return { client: spied, asked, answered, hook }
}
