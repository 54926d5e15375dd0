"""CPU of a picture (GET …/snapshot): a 1080p key frame to a JPEG in a decoder process, the gateway's side included.

python -m bench.stills [--pictures 200]
"""

from __future__ import annotations

import argparse
import asyncio
import resource

from gb28181gw.media.tracks import Codec
from gb28181gw.stills.pool import DecoderPool
from tests.support.media import video_clip


def cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


async def measure(codec: Codec, pictures: int) -> None:
    data = video_clip(codec, width=1920, height=1080, frames=2, noise=30)[0].payload
    own, others = cpu_s(resource.RUSAGE_SELF), cpu_s(resource.RUSAGE_CHILDREN)
    decoders = DecoderPool()
    sizes = await asyncio.gather(*(decoders.to_jpeg(codec, data) for _ in range(pictures)))
    await decoders.close()
    own, others = cpu_s(resource.RUSAGE_SELF) - own, cpu_s(resource.RUSAGE_CHILDREN) - others
    print(
        f"{codec} 1920x1080, key frame {len(data) // 1000} kB, JPEG {len(sizes[0]) // 1000} kB: "
        f"{others / pictures * 1000:.1f} ms of the decoders and {own / pictures * 1000:.2f} ms of the gateway a picture"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200)
    pictures = parser.parse_args().pictures
    for codec in (Codec.H264, Codec.H265):
        asyncio.run(measure(codec, pictures))


if __name__ == "__main__":
    main()
