import { assert, describe, it } from "@effect/vitest"
import { fromUnknown, isPermanent } from "../../src/rabbitmq/RabbitError.ts"

/** An error by which the server closes a channel, as amqplib makes it. */
const closedBy = (code: number, name: string, text: string) =>
  fromUnknown(
    Object.assign(new Error(`Channel closed by server: ${code} (${name}) with message "${name} - ${text}"`), {
      code
    })
  )

describe("an error of RabbitMQ", () => {
  for (const text of [
    "unknown delivery tag 1",
    "delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms."
  ]) {
    it(`is not permanent where a claim is over: ${text}`, () => {
      assert.isFalse(isPermanent(closedBy(406, "PRECONDITION-FAILED", text)))
    })
  }

  it("is permanent where a queue has other arguments", () => {
    assert.isTrue(
      isPermanent(
        closedBy(406, "PRECONDITION-FAILED", "inequivalent arg 'durable' for queue 'q' in vhost '/'")
      )
    )
  })
})
