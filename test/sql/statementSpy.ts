import type { SqlClient } from "effect/sql"

/** What a client was asked. */
export interface Asked {
  readonly text: string
  readonly params: ReadonlyArray<unknown>
}

/** A client that notes what it is asked, each text once. */
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
