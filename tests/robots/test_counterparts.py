"""The simulated buses themselves, byte for byte, as the vendors' protocols say."""

from vla_envs.counterparts import dynamixel, feetech
from vla_envs.counterparts.faults import Faults
from vla_envs.counterparts.mounting import mountings
from vla_envs.counterparts.plants import FirstOrderPlant

NAMES = ("a", "b")


def plant() -> FirstOrderPlant:
    return FirstOrderPlant(NAMES, low=[-1.5, -1.5], high=[1.5, 1.5])  # type: ignore[arg-type]


def feetech_bus() -> feetech.FeetechBus:
    return feetech.FeetechBus(plant(), mountings(2), Faults())


def dynamixel_bus() -> dynamixel.DynamixelBus:
    return dynamixel.DynamixelBus(plant(), mountings(2), Faults())


def sts(ident: int, instruction: int, *parameters: int) -> bytes:
    body = bytes((ident, len(parameters) + 2, instruction, *parameters))
    return b"\xff\xff" + body + bytes((~sum(body) & 0xFF,))


def dxl(ident: int, instruction: int, *parameters: int) -> bytes:
    return dynamixel.packet(ident, dynamixel.stuff(bytes((instruction, *parameters))))


def test_a_feetech_ping_is_answered_as_in_its_manual():
    assert feetech_bus().receive(bytes.fromhex("FFFF010201FB")) == bytes.fromhex("FFFF010200FC")


def test_crc_is_that_of_the_dynamixel_manual():
    """e-manual, protocol 2.0, ping: FF FF FD 00 01 03 00 01 19 4E."""
    assert dynamixel.packet(1, b"\x01") == bytes.fromhex("FFFFFD000103000119 4E")


def test_bytes_that_look_like_a_header_are_stuffed_and_restored():
    body = bytes.fromhex("03 54 00 FFFFFD FFFFFDFD".replace(" ", ""))
    assert b"\xff\xff\xfd\xfd" in dynamixel.stuff(body)
    assert dynamixel.unstuff(dynamixel.stuff(body)) == body


def test_noise_and_damaged_packets_before_a_packet_do_not_hide_it():
    for bus, good in ((feetech_bus(), sts(1, 1)), (dynamixel_bus(), dxl(1, 1))):
        damaged = good[:-1] + bytes((good[-1] ^ 1,))
        assert bus.receive(b"\xff\x00\xff\xff" + damaged + good).count(good[:2]) == 1


def test_a_packet_in_pieces_is_one_packet_and_one_that_halts_is_forgotten():
    for bus, good in ((feetech_bus(), sts(1, 1)), (dynamixel_bus(), dxl(1, 1))):
        assert bus.receive(good[:4]) == b""
        assert bus.receive(good[4:])
        bus.receive(good[:4])
        bus.forget()
        assert bus.receive(good)


def test_the_second_half_of_a_servos_memory_is_gone_after_a_power_cycle_and_the_first_only_if_locked():
    bus = feetech_bus()
    servo = bus.servos[1]
    for lock, kept in ((1, False), (0, True)):
        bus.receive(sts(1, 3, feetech.LOCK, lock))
        bus.receive(sts(1, 3, feetech.MIN_LIMIT, 100, 0) + sts(1, 3, feetech.TORQUE_ENABLE, 1))
        bus.power_up()
        assert (servo.word(feetech.MIN_LIMIT) == 100) is kept
        assert servo.memory[feetech.TORQUE_ENABLE] == 0


def test_registered_writes_wait_for_the_action():
    for bus, write, act, address in (
        (feetech_bus(), sts(1, 4, feetech.GOAL, 0x10, 0x08), sts(0xFE, 5), feetech.GOAL),
        (dynamixel_bus(), dxl(1, 4, 116, 0, 0x10, 0x08, 0, 0), dxl(0xFE, 5), dynamixel.GOAL),
    ):
        servo = bus.servos[1]
        before = bytes(servo.memory[address : address + 2])
        bus.receive(write)
        assert bytes(servo.memory[address : address + 2]) == before
        assert bus.receive(act) == b""  # nobody answers a broadcast
        assert bytes(servo.memory[address : address + 2]) == b"\x10\x08"


def test_sync_reads_are_answered_in_the_order_asked():
    answer = feetech_bus().receive(sts(0xFE, 0x82, feetech.MODEL, 2, 2, 1))
    assert [answer[2], answer[10]] == [2, 1]
    answer = dynamixel_bus().receive(dxl(0xFE, 0x82, 0, 0, 2, 0, 2, 1))
    assert [answer[4], answer[17]] == [2, 1]


def test_a_missing_servo_leaves_the_others_answers_to_a_sync_read():
    bus = feetech_bus()
    bus.faults.inject("silent", 1)
    answer = bus.receive(sts(0xFE, 0x82, feetech.MODEL, 2, 1, 2))
    assert answer[2] == 2
    assert len(answer) == 8


def test_a_goal_beyond_the_limits_is_cut_by_one_make_and_refused_by_the_other():
    sts_bus = feetech_bus()
    sts_bus.receive(
        sts(1, 3, feetech.MAX_LIMIT, *(2200).to_bytes(2, "little")) + sts(1, 3, feetech.TORQUE_ENABLE, 1)
    )
    sts_bus.receive(sts(1, 3, feetech.GOAL, *(3000).to_bytes(2, "little")))
    servo = sts_bus.servos[1]
    servo.plant.advance(3.0)
    assert abs(servo.position - 2200) <= 1
    dxl_bus = dynamixel_bus()
    dxl_bus.receive(dxl(1, 3, 48, 0, *(2200).to_bytes(4, "little")))
    answer = dxl_bus.receive(dxl(1, 3, 116, 0, *(3000).to_bytes(4, "little")))
    assert answer[8] == dynamixel.BEYOND_LIMIT


def test_dynamixel_memory_is_not_written_while_it_holds():
    bus = dynamixel_bus()
    bus.receive(dxl(1, 3, 64, 0, 1))
    assert bus.receive(dxl(1, 3, 20, 0, 1, 0, 0, 0))[8] == dynamixel.NO_ACCESS


def test_writing_128_to_the_torque_register_makes_here_the_middle():
    bus = feetech_bus()
    bus.receive(sts(1, 3, feetech.TORQUE_ENABLE, feetech.CENTRE_HERE))
    assert bus.servos[1].position == 2048
