/** The locations of the systems on RabbitMQ: messages in RabbitMQ, and results in Redis. */
import { remove } from "../test/rabbitmq/remove.ts"
import { makePrefix as makeRedisPrefix, parseLocation as parseRedis } from "./redis.ts"

export interface RabbitmqLocation {
  readonly url: string
  readonly redisUrl: string
  /** The prefix of the names of queues, and of keys in Redis: letters, digits and `-`. */
  readonly prefix: string
}

const server = process.env["CHICORY_TEST_RABBITMQ_URL"] ?? "amqp://guest:guest@127.0.0.1:5672"

/** Parses a location: RabbitMQ's URL, a space, and the location on Redis. */
export const parseLocation = (location: string): RabbitmqLocation => {
  const [url = "", redis = ""] = location.split(" ")
  const { prefix, url: redisUrl } = parseRedis(redis)
  return { url, redisUrl, prefix }
}

/** Without `noDelay` the kernel delays sent data by 40 ms. */
export const connect = async (url: string) => {
  const amqplib = await import("amqplib")
  const connection = await amqplib.connect(url, { noDelay: true })
  connection.on("error", (error) => console.error(error))
  return connection
}

export const floorQueue = (prefix: string) => `${prefix}.floor`

/** Queues that stay behind would use up the server's file handles, until it accepts no more connections. */
const removeQueues = async (url: string, prefix: string) => {
  const connection = await connect(url)
  const channel = await connection.createChannel()
  await channel.deleteQueue(floorQueue(prefix))
  await remove(channel, prefix, ["default", "idle"])
  await connection.close()
}

/** Fails if one of the servers cannot be reached. */
export const makePrefix = async () => {
  await (await connect(server)).close()
  const redis = await makeRedisPrefix()
  const { prefix } = parseRedis(redis.location)
  return {
    location: `${server} ${redis.location}`,
    remove: async () => {
      await Promise.all([removeQueues(server, prefix), redis.remove()])
    }
  }
}
