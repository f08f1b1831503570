from tests.world_contract import check_world
from wm.worlds.car_racing import CarRacing


def test_contract():
    check_world(CarRacing())
