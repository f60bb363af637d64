/** What a worker tells of itself, as stores keep it. */
import { Schema } from "effect"

const Heartbeat = Schema.fromJsonString(
  Schema.Struct({
    id: Schema.String,
    hostname: Schema.String,
    pid: Schema.Number,
    queues: Schema.Array(Schema.String),
    tasks: Schema.Array(Schema.String),
    concurrency: Schema.Number,
    running: Schema.Number
  })
)

/** To text. */
export const encode = Schema.encodeEffect(Heartbeat)

/** From text. */
export const decode = Schema.decodeUnknownEffect(Heartbeat)
