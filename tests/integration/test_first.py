import cnm
async def test_ping(controller: cnm.Controller) -> None:
    network = await controller.create_network("front", ipv6=True)
    one = await controller.create_sandbox("one")
    await network.connect(one)
async def test_ping2(controller: cnm.Controller) -> None:
    network = await controller.create_network("front", ipv6=True)
