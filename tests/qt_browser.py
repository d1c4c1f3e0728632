"""Qt's Chromium with its DevTools open, for machines without another one.

Run as a program: `QTWEBENGINE_REMOTE_DEBUGGING` tells where DevTools listen.
"""

import sys

from PySide6.QtCore import QUrl
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

if __name__ == "__main__":
    application = QApplication(sys.argv)
    view = QWebEngineView()
    view.load(QUrl("about:blank"))
    view.show()
    sys.exit(application.exec())
