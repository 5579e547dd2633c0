"""Many mails from tasks, over a few connections.

python send_async.py osgiconfig author,dev you@customer.example me@customer.example
"""

import asyncio
import sys

from outgate.mailer import AsyncMailService, ConfigError, MessageError, SendFailed, Template

NEWS = Template("To: ${to}\nSubject: News for ${name}\n\nDear ${name},\n\nthere is nothing new.\n")


async def main(config, run_modes, *addresses):
    async with AsyncMailService.load(config, run_modes.split(",")) as service:
        messages = [NEWS.message({"to": each, "name": each.partition("@")[0]}, strict=True) for each in addresses]
        results = await asyncio.gather(*map(service.send, messages), return_exceptions=True)
    failed = 0
    for address, result in zip(addresses, results, strict=True):
        if isinstance(result, SendFailed):
            print(f"{address}: {result}", file=sys.stderr)
        elif isinstance(result, BaseException):
            raise result
        else:
            print(address, result.queue_id or result.reply)
        failed += isinstance(result, SendFailed) or not result.accepted
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(*sys.argv[1:])) if len(sys.argv) > 3 else __doc__)
    except (ConfigError, MessageError) as error:  # a template's errors, too
        sys.exit(str(error))
