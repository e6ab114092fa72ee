"""The contract suites that every connector must pass: subclass one and say how to reach your database.

    class TestMySink(SinkContract):
        @pytest.fixture
        def target(self) -> Iterator[Target]:
            ...

`docs/writing-a-connector.md` shows both adapters in full.
"""

from cdcrep.testing.contract_data import Origin, Target
from cdcrep.testing.sink_contract import SinkContract
from cdcrep.testing.sink_copy_contract import SinkCopyContract
from cdcrep.testing.source_contract import SourceContract

__all__ = ["Origin", "SinkContract", "SinkCopyContract", "SourceContract", "Target"]
