import type { SqlClient } from "effect/sql"

/** A statement that was sent, with its last parameters. */
export interface Asked {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
}

/** Returns a client that records the statements it is sent, each text once. */
export const spyOn = <Client extends SqlClient.SqlClient>(client: Client) => {
  const asked = new Map<string, Asked>()
  const spied: SqlClient.SqlClient = Object.assign(
    (...args: Parameters<SqlClient.SqlClient>) => client(...args),
    client,
    {
      withoutTransforms: () => spied,
      unsafe: (text: string, params: ReadonlyArray<unknown> = []) => {
        asked.set(text, { text, params })
        return client.unsafe(text, params)
      }
    }
  ) as never
  return { client: spied, asked }
}
