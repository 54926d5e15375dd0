"""The closed list of tolerances that the readers of this package use.

Each has the row of docs/reference/quirks.md that it answers. A reader returns the quirks that fired; the
owner of the device counts and shows them ("tolerance is data").
"""

from __future__ import annotations

from enum import StrEnum


class Quirk(StrEnum):
    """Name of a tolerance; `row` is the catalogue row. The names are stable: they are stored and shown."""

    row: str

    def __new__(cls, value: str, row: str) -> Quirk:
        member = str.__new__(cls, value)
        member._value_ = value
        member.row = row
        return member

    # characters
    CHARSET_BEYOND_GB2312 = "charset.beyond_gb2312", "XML-01"
    CHARSET_DECLARATION_LIED = "charset.declaration_lied", "XML-02"
    CHARSET_UNDECODABLE = "charset.undecodable_bytes", "XML-06"
    CHARSET_UTF8_DAMAGED = "charset.utf8_damaged", "XML-06"
    # XML form
    XML_NO_DECLARATION = "xml.no_declaration", "XML-03"
    XML_BOM = "xml.bom", "XML-03"
    XML_LEADING_BYTES = "xml.leading_bytes", "XML-03"
    XML_CONTROL_CHAR = "xml.illegal_control_char", "XML-04"
    XML_NUL_PADDING = "xml.nul_padding", "XML-04"
    XML_BARE_AMPERSAND = "xml.bare_ampersand", "XML-05"
    XML_RAW_LESS_THAN = "xml.raw_less_than", "XML-06"
    XML_RECOVERED = "xml.recovered", "XML-08"
    XML_ITEMS_SCANNED = "xml.items_scanned", "XML-06"
    XML_NAME_FORM = "xml.name_form", "XML-10"
    XML_HEAD_IN_ATTRIBUTES = "xml.head_in_attributes", "XML-10"
    XML_SN_UNREADABLE = "xml.sn_unreadable", "XML-11"
    XML_RESULT_TEXT = "xml.result_text", "XML-13"
    XML_SECOND_DOCUMENT = "xml.second_document", "XML-18"
    XML_TRAILING_BYTES = "xml.trailing_bytes", "XML-18"
    XML_TEXT_CUT = "xml.text_cut", "XML-23"
    # catalogue
    CATALOG_COUNT_DIFFERS = "catalog.count_differs", "CAT-05"
    CATALOG_ITEM_WITHOUT_ID = "catalog.item_without_id", "XML-06"
    CATALOG_PARENT_FORM = "catalog.parent_form", "CAT-07"
    CATALOG_PARENTAL_VALUE = "catalog.parental_value", "CAT-08"
    CATALOG_STATUS_SYNONYM = "catalog.status_synonym", "CAT-09"
    CATALOG_CIVIL_CODE = "catalog.civil_code", "CAT-10"
    CATALOG_PLACEHOLDER = "catalog.placeholder", "CAT-11"
    CATALOG_SELF_ITEM = "catalog.self_item", "CAT-14"
    CATALOG_EVENT_FORM = "catalog.event_form", "CAT-20"
    # presets
    PRESET_ID_FORM = "preset.id_form", "CTL-10"
    PRESET_COUNT_DIFFERS = "preset.count_differs", "CTL-10"
    # recordings
    RECORD_FORM = "record.form", "PB-18"
    # positions
    POSITION_UNUSABLE = "position.unusable", "CTL-04"
    # ids and times
    ID_FORM = "id.form", "REG-13"
    TIME_FORM = "time.form", "PB-01"
    # session descriptions
    SDP_NO_Y = "sdp.no_y", "INV-01"
    SDP_OTHER_Y = "sdp.other_y", "INV-02"
    SDP_Y_FORM = "sdp.y_form", "INV-04"
    SDP_UNUSABLE_ADDRESS = "sdp.unusable_address", "INV-17"
    SDP_PORT_ZERO = "sdp.port_zero", "INV-17"
    SDP_SETUP = "sdp.setup", "INV-18"
    SDP_TRANSPORT_DIFFERS = "sdp.transport_differs", "INV-24"
    SDP_SESSION_NAME = "sdp.session_name", "INV-25"
    SDP_LINE_FORM = "sdp.line_form", "TK-04"
    SDP_MISSING_LINE = "sdp.missing_line", "TK-04"
