"""What the C++ classes behind the stand-ins really offer to Python: properties, signals, slots, invokable methods.

Python sees a public method only where its header says Q_INVOKABLE: a slider has no setRange, a section no setCollapsed.
Read from the headers named in each row (Slicer main 5.13, CTK master). The stand-ins may have a part of this and
nothing more; test_realapi.py holds them, the .ui files and the panels to it. Qt's own classes are held to Qt itself.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Api:
    """One C++ class, without what it inherits."""

    source: str
    bases: tuple[str, ...]
    properties: frozenset[str]
    signals: frozenset[str]
    slots: frozenset[str]
    methods: frozenset[str]


def _api(source: str, bases: str, properties: str, signals: str, slots: str, methods: str) -> Api:
    parts = (frozenset(text.split()) for text in (properties, signals, slots, methods))
    return Api(source, tuple(bases.split()), *parts)


#: C++ class name to what its header declares.
REAL: dict[str, Api] = {
    "qMRMLWidget": _api(
        "Libs/MRML/Widgets/qMRMLWidget.h",
        "QWidget",
        "",
        "mrmlSceneChanged(vtkMRMLScene*)",
        "setMRMLScene(vtkMRMLScene*)",
        "mrmlScene pixmapFromIcon postInitializeApplication preInitializeApplication",
    ),
    "qSlicerObject": _api(
        "Base/QTCore/qSlicerObject.h",
        "",
        "",
        "",
        "",
        "",
    ),
    "qSlicerLoadableModule": _api(
        "Base/QTGUI/qSlicerLoadableModule.h",
        "qSlicerAbstractModule",
        "",
        "",
        "",
        "",
    ),
    "qSlicerAbstractModule": _api(
        "Base/QTGUI/qSlicerAbstractModule.h",
        "qSlicerAbstractCoreModule",
        "icon logo",
        "",
        "",
        "action icon logo",
    ),
    "qMRMLNodeComboBox": _api(
        "Libs/MRML/Widgets/qMRMLNodeComboBox.h",
        "QWidget",
        "addEnabled baseName currentNodeID currentNodeId editEnabled hideChildNodeTypes "
        "interactionNodeSingletonTag nodeTypes noneDisplay noneEnabled removeEnabled renameEnabled "
        "selectNodeUponCreation showChildNodeTypes showHidden sizeAdjustPolicy",
        "currentNodeChanged(bool) currentNodeChanged(vtkMRMLNode*) currentNodeIDChanged(QString) "
        "currentNodeRenamed(QString) nodeAboutToBeEdited(vtkMRMLNode*) nodeAboutToBeRemoved(vtkMRMLNode*) "
        "nodeActivated(vtkMRMLNode*) nodeAdded(vtkMRMLNode*) nodeAddedByUser(vtkMRMLNode*) "
        "nodeAddedByUserAction(vtkMRMLNode*)",
        "addNode() addNode(QString) editCurrentNode() removeCurrentNode() renameCurrentNode() "
        "setCurrentNode(QString) setCurrentNode(vtkMRMLNode*) setCurrentNodeID(QString) "
        "setCurrentNodeIndex(int) setMRMLScene(vtkMRMLScene*)",
        "addAttribute addEnabled addMenuAction baseName currentNode currentNodeID currentNodeId editEnabled "
        "hideChildNodeTypes interactionNodeSingletonTag mrmlScene nodeCount nodeFromIndex nodeTypeLabel "
        "nodeTypes noneDisplay noneEnabled removeAttribute removeEnabled renameEnabled "
        "selectNodeUponCreation setNodeTypeLabel showChildNodeTypes showHidden sizeAdjustPolicy "
        "sortFilterProxyModel",
    ),
    "qSlicerWidget": _api(
        "Base/QTGUI/qSlicerWidget.h",
        "QWidget qSlicerObject",
        "",
        "mrmlSceneChanged(vtkMRMLScene*)",
        "setMRMLScene(vtkMRMLScene*)",
        "",
    ),
    "qSlicerAbstractModuleWidget": _api(
        "Base/QTGUI/qSlicerAbstractModuleWidget.h",
        "qSlicerWidget qSlicerAbstractModuleRepresentation",
        "isEntered",
        "",
        "",
        "enter exit isEntered nodeEditable setEditedNode",
    ),
    "qSlicerScriptedLoadableModuleWidget": _api(
        "Base/QTGUI/qSlicerScriptedLoadableModuleWidget.h",
        "qSlicerAbstractModuleWidget",
        "moduleName",
        "",
        "",
        "reload self",
    ),
    "ctkLayoutFactory": _api(
        "Libs/Widgets/ctkLayoutFactory.h",
        "ctkLayoutManager",
        "",
        "",
        "",
        "",
    ),
    "ctkLayoutManager": _api(
        "Libs/Widgets/ctkLayoutManager.h",
        "QObject",
        "spacing viewportNames",
        "layoutChanged()",
        "",
        "isViewportUsedInLayout setViewport spacing viewport viewportNames",
    ),
    "qMRMLLayoutManager": _api(
        "Libs/MRML/Widgets/qMRMLLayoutManager.h",
        "ctkLayoutFactory",
        "enabled layout plotViewCount tableViewCount threeDViewCount",
        "activeMRMLPlotViewNodeChanged(vtkMRMLPlotViewNode*) "
        "activeMRMLTableViewNodeChanged(vtkMRMLTableViewNode*) "
        "activeMRMLThreeDViewNodeChanged(vtkMRMLViewNode*) activePlotRendererChanged(vtkRenderer*) "
        "activeTableRendererChanged(vtkRenderer*) activeThreeDRendererChanged(vtkRenderer*) "
        "layoutChanged(int) nodeAboutToBeEdited(vtkMRMLNode*)",
        "addMaximizedViewNode(vtkMRMLAbstractViewNode*) pauseRender() removeAllMaximizedViewNodes() "
        "removeMaximizedViewNode(vtkMRMLAbstractViewNode*) resetSliceViews() resetThreeDViews() "
        "resumeRender() setEnabled(bool) setLayout(int) setLayoutNumberOfCompareViewColumns(int) "
        "setLayoutNumberOfCompareViewRows(int) setMRMLScene(vtkMRMLScene*) setRenderPaused(bool)",
        "activeMRMLPlotViewNode activeMRMLTableViewNode activeMRMLThreeDViewNode activePlotRenderer "
        "activeTableRenderer activeThreeDRenderer layout layoutLogic mrmlColorLogic mrmlScene "
        "mrmlSliceLogics mrmlViewFactories mrmlViewFactory mrmlViewLogics plotViewCount plotWidget "
        "registerViewFactory setMRMLColorLogic sliceViewNames sliceWidget tableViewCount tableWidget "
        "threeDViewCount threeDWidget viewWidget viewWidgets",
    ),
    "qSlicerLayoutManager": _api(
        "Base/QTGUI/qSlicerLayoutManager.h",
        "qMRMLLayoutManager",
        "",
        "selectModule(QString)",
        "",
        "setScriptedDisplayableManagerDirectory",
    ),
    "qMRMLAbstractViewWidget": _api(
        "Libs/MRML/Widgets/qMRMLAbstractViewWidget.h",
        "qMRMLWidget",
        "viewColor viewLabel",
        "",
        "pauseRender() resumeRender() setMRMLAbstractViewNode(vtkMRMLAbstractViewNode*) setRenderPaused(bool)",
        "controllerWidget logic mrmlAbstractViewNode setViewColor setViewLabel viewColor viewLabel viewWidget",
    ),
    "qMRMLSliceWidget": _api(
        "Libs/MRML/Widgets/qMRMLSliceWidget.h",
        "qMRMLAbstractViewWidget",
        "sliceOffsetSliderOrientation sliceOrientation sliceViewColor sliceViewLabel sliceViewName",
        "nodeAboutToBeEdited(vtkMRMLNode*)",
        "fitSliceToBackground() setImageDataConnection(vtkAlgorithmOutput*) "
        "setMRMLAbstractViewNode(vtkMRMLAbstractViewNode*) setMRMLScene(vtkMRMLScene*) "
        "setMRMLSliceNode(vtkMRMLSliceNode*) setSliceOffsetSliderOrientation(Qt::Orientation) "
        "setSliceOrientation(QString)",
        "controllerWidget imageDataConnection interactorStyle logic mrmlAbstractViewNode "
        "mrmlSliceCompositeNode mrmlSliceNode overlayCornerAnnotation setSliceLogics sliceController "
        "sliceLogic sliceOffsetSliderOrientation sliceOrientation sliceVerticalController sliceView "
        "sliceViewColor sliceViewLabel sliceViewName viewWidget",
    ),
    "qMRMLThreeDWidget": _api(
        "Libs/MRML/Widgets/qMRMLThreeDWidget.h",
        "qMRMLAbstractViewWidget",
        "",
        "",
        "setMRMLAbstractViewNode(vtkMRMLAbstractViewNode*) setMRMLViewNode(vtkMRMLViewNode*)",
        "addDisplayableManager controllerWidget getDisplayableManagers logic mrmlAbstractViewNode "
        "mrmlViewNode setQuadBufferStereoSupportEnabled threeDController threeDView viewLogic viewWidget",
    ),
    "ctkVTKAbstractView": _api(
        "Libs/Visualization/VTK/Widgets/ctkVTKAbstractView.h",
        "QWidget",
        "backgroundColor backgroundColor2 cornerAnnotationText fpsVisible gradientBackground "
        "maximumUpdateRate renderEnabled useDepthPeeling",
        "",
        "forceRender() pauseRender() resumeRender() scheduleRender() setBackgroundColor(QColor) "
        "setBackgroundColor2(QColor) setCornerAnnotationText(QString) setFPSVisible(bool) "
        "setGradientBackground(bool) setMaximumUpdateRate(double) setRenderEnabled(bool) "
        "setRenderPaused(bool) setUseDepthPeeling(bool)",
        "VTKWidget backgroundColor backgroundColor2 cornerAnnotation cornerAnnotationText "
        "gradientBackground interactor interactorStyle maximumUpdateRate renderEnabled renderWindow "
        "useDepthPeeling",
    ),
    "ctkVTKSliceView": _api(
        "Libs/Visualization/VTK/Widgets/ctkVTKSliceView.h",
        "ctkVTKAbstractView",
        "colorLevel colorWindow highlightedBoxColor renderWindowLayoutType",
        "resized(QSize)",
        "resetCamera() setColorLevel(double) setColorWindow(double) setHighlightedBoxColor(QColor) "
        "setImageDataConnection(vtkAlgorithmOutput*) setLightBoxRendererManagerColumnCount(int) "
        "setLightBoxRendererManagerRowCount(int) setRenderWindowLayoutType(RenderWindowLayoutType)",
        "colorLevel colorWindow highlightedBoxColor lightBoxRendererManager renderWindowLayoutType",
    ),
    "qMRMLSliceView": _api(
        "Libs/MRML/Widgets/qMRMLSliceView.h",
        "ctkVTKSliceView",
        "",
        "",
        "setMRMLScene(vtkMRMLScene*) setMRMLSliceNode(vtkMRMLSliceNode*)",
        "addDisplayableManager convertDeviceToXYZ convertRASToXYZ convertXYZToRAS "
        "displayableManagerByClassName getDisplayableManagers interactorObserver mrmlSliceNode "
        "setDefaultViewCursor setViewCursor sliceViewInteractorStyle unsetViewCursor",
    ),
    "ctkVTKRenderView": _api(
        "Libs/Visualization/VTK/Widgets/ctkVTKRenderView.h",
        "ctkVTKAbstractView",
        "animationIntervalMs orientationWidgetVisible pitchDirection pitchRollYawIncrement rockEnabled "
        "rockLength rollDirection spinDirection spinEnabled spinIncrement yawDirection zoomFactor",
        "",
        "lookFromAxis(ctkAxesWidget::Axis) lookFromAxis(ctkAxesWidget::Axis,double) pitch() resetFocalPoint() "
        "roll() setAnimationIntervalMs(int) setFocalPoint(double,double,double) "
        "setOrientationWidgetVisible(bool) setPitchRollYawIncrement(double) setRockEnabled(bool) "
        "setRockIncrement(int) setRockLength(int) setSpinEnabled(bool) setSpinIncrement(double) "
        "setZoomFactor(double) yaw() zoomIn() zoomOut()",
        "animationIntervalMs orientationWidgetVisible pitchDirection pitchRollYawIncrement rockEnabled "
        "rockLength rollDirection spinDirection spinEnabled spinIncrement yawDirection zoomFactor",
    ),
    "qMRMLThreeDView": _api(
        "Libs/MRML/Widgets/qMRMLThreeDView.h",
        "ctkVTKRenderView",
        "ambientShadowsIntensityScale ambientShadowsIntensityShift ambientShadowsSizeScale "
        "ambientShadowsVolumeOpacityThreshold shadowsVisibility",
        "",
        "lookFromAxis(axis) lookFromViewAxis(ctkAxesWidget::Axis) resetFocalPoint() "
        "setAmbientShadowsIntensityScale(double) setAmbientShadowsIntensityShift(double) "
        "setAmbientShadowsSizeScale(double) setAmbientShadowsVolumeOpacityThreshold(double) "
        "setMRMLScene(vtkMRMLScene*) setMRMLViewNode(vtkMRMLViewNode*) setShadowsVisibility(bool)",
        "ambientShadowsIntensityScale ambientShadowsIntensityShift ambientShadowsSizeScale "
        "ambientShadowsVolumeOpacityThreshold cameraNode displayableManagerByClassName "
        "getDisplayableManagers interactorObserver mrmlViewNode resetCamera rotateToViewAxis "
        "setDefaultViewCursor setViewCursor shadowsVisibility ssaoPass unsetViewCursor",
    ),
    "qSlicerCoreApplication": _api(
        "Base/QTCore/qSlicerCoreApplication.h",
        "QApplication",
        "applicationLocale applicationLocaleName arch cachePath defaultScenePath documentationBaseUrl "
        "documentationLanguage documentationVersion extensionsInstallPath intDir isCustomMainApplication "
        "isInstalled isUsageLoggingSupported launcherExecutableFilePath launcherSettingsFilePath "
        "mainApplicationDisplayName mainApplicationMajorVersion mainApplicationMinorVersion "
        "mainApplicationName mainApplicationPatchVersion mainApplicationRepositoryRevision "
        "mainApplicationRepositoryUrl mainApplicationRevision majorVersion minorVersion os platform "
        "releaseType repositoryBranch repositoryRevision repositoryUrl revision slicerDefaultSettingsFilePath "
        "slicerHome slicerRevisionUserSettingsFilePath slicerSharePath slicerUserSettingsFilePath "
        "startupWorkingPath temporaryPath",
        "invokeEventRequested(unsignedint,void*,unsignedlong,void*) mrmlSceneChanged(vtkMRMLScene*) "
        "urlReceived(QString) usageEventLogged(QString,QString)",
        "loadFiles(QStringList,vtkMRMLMessageCollection*) openUrl(QString) pauseRender() restart() "
        "resumeRender() setRenderPaused(bool) unregisterResource(int)",
        "addModuleAssociatedNodeType allModuleAssociatedNodeTypes applicationLocale applicationLocaleName "
        "applicationLogic applicationUpdateManager arch caCertificatesPath cachePath coreIOManager "
        "defaultScenePath defaultSettings dicomDatabase documentationBaseUrl documentationLanguage "
        "documentationVersion environment errorLogModel extensionsInstallPath extensionsManagerModel "
        "handleURIArguments intDir isCustomMainApplication isEnvironmentVariableValueSet isInstalled "
        "isUsageLoggingSupported launcherExecutableFilePath launcherSettingsFilePath loadCaCertificates "
        "loadLanguage loadTranslations logUsageEvent mainApplicationDisplayName mainApplicationMajorVersion "
        "mainApplicationMinorVersion mainApplicationName mainApplicationPatchVersion "
        "mainApplicationRepositoryRevision mainApplicationRepositoryUrl mainApplicationRevision "
        "majorVersion minorVersion moduleDocumentationUrl moduleLogic moduleManager "
        "modulesAssociatedWithNodeType mrmlScene os platform registerResource releaseType "
        "removeModuleAssociatedNodeType repositoryBranch repositoryRevision repositoryUrl revision "
        "revisionUserSettings setEnvironmentVariable settings showConsoleMessage "
        "slicerDefaultSettingsFilePath slicerHome slicerRevisionUserSettingsFilePath slicerSharePath "
        "slicerUserSettingsFilePath startupEnvironment startupWorkingPath temporaryPath "
        "toSlicerHomeAbsolutePath toSlicerHomeAbsolutePaths toSlicerHomeRelativePath "
        "toSlicerHomeRelativePaths translationFolders userSettings",
    ),
    "qSlicerApplication": _api(
        "Base/QTGUI/qSlicerApplication.h",
        "qSlicerCoreApplication",
        "",
        "renderPaused(bool) startupCompleted()",
        "confirmRestart(QString) currentLogFile() launchDesigner(QStringList) "
        "loadFiles(QStringList,vtkMRMLMessageCollection*) numberOfRecentLogFilesToKeep() "
        "openApplicationDownloadWebsite() openExtensionsCatalogWebsite() openExtensionsManagerDialog() "
        "openNodeModule(vtkMRMLNode*,QString,QString) pauseRender() recentLogFiles() resumeRender() "
        "setHasBorderInFullScreen(bool) setPythonConsoleLogLevel(ctkErrorLogLevel::LogLevel) "
        "setRenderPaused(bool)",
        "commandOptions createDICOMBrowserForMainDatabase ioManager isCodePageUtf8 layoutManager "
        "logApplicationInformation openSettingsDialog pythonConsole pythonConsoleLogLevel pythonManager "
        "setLayoutManager settingsDialog testingUtility windowsActiveCodePage windowsOSBuildNumber",
    ),
    "qSlicerModuleManager": _api(
        "Base/QTCore/qSlicerModuleManager.h",
        "QObject",
        "",
        "moduleAboutToBeUnloaded(QString) moduleLoaded(QString)",
        "",
        "factoryManager module modulesNames",
    ),
    "qSlicerModuleFactoryManager": _api(
        "Base/QTCore/qSlicerModuleFactoryManager.h",
        "qSlicerAbstractModuleFactoryManager",
        "",
        "moduleAboutToBeUnloaded(QString) moduleLoaded(QString) moduleUnloaded(QString) "
        "modulesAboutToBeUnloaded(QStringList) modulesLoaded(QStringList) modulesUnloaded(QStringList) "
        "mrmlSceneChanged(vtkMRMLScene*)",
        "setMRMLScene(vtkMRMLScene*)",
        "isLoaded loadModules loadedModule loadedModuleNames unloadModules",
    ),
    "qSlicerAbstractModuleFactoryManager": _api(
        "Base/QTCore/qSlicerAbstractModuleFactoryManager.h",
        "QObject",
        "modulesToIgnore searchPaths",
        "explicitModulesChanged(QStringList) moduleAboutToBeInstantiated(QString) "
        "moduleAboutToBeUninstantiated(QString) moduleIgnored(QString) moduleInstantiated(QString) "
        "moduleRegistered(QString) moduleUninstantiated(QString) modulesAboutToBeUninstantiated(QStringList) "
        "modulesInstantiated(QStringList) modulesRegistered(QStringList) modulesToIgnoreChanged(QStringList) "
        "modulesUninstantiated(QStringList)",
        "isVerbose() setIsVerbose(bool)",
        "instantiatedModuleNames isInstantiated isRegistered moduleInstance modulesToIgnore registerModule "
        "registeredModuleNames searchPaths",
    ),
    "qSlicerAbstractCoreModule": _api(
        "Base/QTCore/qSlicerAbstractCoreModule.h",
        "QObject",
        "acknowledgementText associatedNodeTypes categories contributors defaultDocumentationLink "
        "dependencies helpText hidden index isBuiltIn isInstalled name path slicerWikiUrl title "
        "widgetRepresentationCreationEnabled",
        "",
        "setMRMLScene(vtkMRMLScene*)",
        "acknowledgementText associatedNodeTypes categories contributors defaultDocumentationLink "
        "dependencies helpText index isBuiltIn isInstalled logic mrmlScene name path slicerWikiUrl title",
    ),
    "qSlicerScriptedLoadableModule": _api(
        "Base/QTGUI/qSlicerScriptedLoadableModule.h",
        "qSlicerLoadableModule",
        "acknowledgementText associatedNodeTypes categories contributors dependencies extensions helpText "
        "hidden icon index title",
        "",
        "",
        "acknowledgementText associatedNodeTypes categories contributors dependencies extensions helpText "
        "icon index title",
    ),
    "qSlicerCoreIOManager": _api(
        "Base/QTCore/qSlicerCoreIOManager.h",
        "QObject",
        "defaultMaximumFileNameLength defaultSceneFileType",
        "fileSaved(qSlicerIO::IOProperties) newFileLoaded(qSlicerIO::IOProperties)",
        "setDefaultMaximumFileNameLength(int) setDefaultSceneFileType(QString)",
        "addDefaultStorageNodes allReadableFileExtensions allWritableFileExtensions "
        "completeSlicerWritableFileNameSuffix createAndAddDefaultStorageNode defaultMaximumFileNameLength "
        "defaultSceneFileType emitFileSaved emitNewFileLoaded examineFileInfoList exportNodes "
        "extractKnownExtension fileDescriptions fileNameRegularExpression fileType fileTypeFromDescription "
        "fileTypes fileWriterDescriptions fileWriterExtensions fileWriterFileType forceFileNameMaxLength "
        "forceFileNameValidCharacters loadFile loadNodes loadScene registeredFileReaderCount "
        "registeredFileWriterCount saveNodes saveScene stripKnownExtension",
    ),
    "qSlicerMainWindow": _api(
        "Base/QTApp/qSlicerMainWindow.h",
        "QMainWindow",
        "",
        "initialWindowShown()",
        "addFileToRecentFiles(qSlicerIO::IOProperties) onErrorLogToggled(bool) "
        "onFileRecentLoadedActionTriggered() onLayoutActionTriggered(QAction*) "
        "onLayoutCompareActionTriggered(QAction*) onLayoutCompareGridActionTriggered(QAction*) "
        "onPythonConsoleToggled(bool) on_CopyAction_triggered() on_CutAction_triggered() "
        "on_EditApplicationSettingsAction_triggered() on_EditPlayMacroAction_triggered() "
        "on_EditRecordMacroAction_triggered() on_EditRedoAction_triggered() on_EditUndoAction_triggered() "
        "on_FavoriteModulesChanged() on_FileAddDataAction_triggered() on_FileAddTransformAction_triggered() "
        "on_FileAddVolumeAction_triggered() on_FileCloseSceneAction_triggered() on_FileExitAction_triggered() "
        "on_FileFavoriteModulesAction_triggered() on_FileImportSceneAction_triggered() "
        "on_FileLoadDataAction_triggered() on_FileLoadSceneAction_triggered() "
        "on_FileSaveSceneAction_triggered() on_LoadDICOMAction_triggered() on_ModuleHomeAction_triggered() "
        "on_PasteAction_triggered() on_SDBSaveToDirectoryAction_triggered() on_SDBSaveToMRBAction_triggered() "
        "on_ShowStatusBarAction_triggered(bool) on_ViewExtensionsManagerAction_triggered() "
        "on_WindowToolbarsResetToDefaultAction_triggered() removeAllMaximizedViewNodes() "
        "restoreGUIState(bool) restoreToolbars() saveGUIState(bool) setHomeModuleCurrent() setLayout(int) "
        "setLayoutNumberOfCompareViewColumns(int) setLayoutNumberOfCompareViewRows(int)",
        "errorLogDockWidget errorLogWidget moduleSelector pythonConsole",
    ),
    "qSlicerModuleSelectorToolBar": _api(
        "Base/QTGUI/qSlicerModuleSelectorToolBar.h",
        "QToolBar",
        "selectedModule",
        "moduleSelected(QString)",
        "selectModule(QString) selectNextModule() selectPreviousModule() "
        "setModuleManager(qSlicerModuleManager*) showModuleFinder()",
        "modulesMenu modulesMenuComboBox selectedModule",
    ),
    "ctkCollapsibleButton": _api(
        "Libs/Widgets/ctkCollapsibleButton.h",
        "QAbstractButton",
        "buttonTextAlignment collapsed collapsedHeight contentsFrameShadow contentsFrameShape "
        "contentsLineWidth contentsMidLineWidth flat indicatorAlignment",
        "contentsCollapsed(bool)",
        "",
        "buttonTextAlignment collapsed collapsedHeight contentsFrameShadow contentsFrameShape "
        "contentsLineWidth contentsMidLineWidth indicatorAlignment",
    ),
    "ctkSliderWidget": _api(
        "Libs/Widgets/ctkSliderWidget.h",
        "QWidget",
        "decimals invertedAppearance invertedControls maximum minimum pageStep popupSlider prefix singleStep "
        "spinBoxAlignment spinBoxVisible suffix synchronizeSiblings tickInterval tickPosition tracking value",
        "decimalsChanged(int) valueChanged(double) valueIsChanging(double)",
        "reset() setDecimals(int) setSpinBoxVisible(bool) setValue(double)",
        "decimals invertedAppearance invertedControls maximum minimum pageStep prefix singleStep "
        "spinBoxAlignment suffix synchronizeSiblings tickInterval tickPosition value",
    ),
    "ctkPathLineEdit": _api(
        "Libs/Widgets/ctkPathLineEdit.h",
        "QWidget",
        "currentPath filters label minimumContentsLength nameFilters options settingKey showBrowseButton "
        "showHistoryButton sizeAdjustPolicy",
        "currentPathChanged(QString) validInputChanged(bool)",
        "addCurrentPathToHistory() browse() retrieveHistory() setCurrentPath(QString)",
        "comboBox currentPath filters label minimumContentsLength nameFilters options settingKey "
        "showBrowseButton showHistoryButton sizeAdjustPolicy Dirs Files",
    ),
    "ctkMessageBox": _api(
        "Libs/Widgets/ctkMessageBox.h",
        "QMessageBox",
        "dontShowAgain dontShowAgainButtonRoles dontShowAgainSettingsKey dontShowAgainVisible",
        "",
        "onFinished(int) setDontShowAgain(bool)",
        "addDontShowAgainButtonRole dontShowAgain dontShowAgainButtonRoles dontShowAgainSettingsKey",
    ),
}

#: What only Python sees: qSlicerBaseQTCorePythonQtDecorators.h and qSlicerBaseQTGUIPythonQtDecorators.h.
DECORATED = {
    "qSlicerCoreApplication": frozenset({"testingEnabled", "processEvents", "sendEvent"}),
    "qSlicerAbstractModule": frozenset({"widgetRepresentation", "createNewWidgetRepresentation"}),
    "qSlicerAbstractModuleWidget": frozenset({"module"}),
}


def _all(name: str, part: str) -> frozenset[str]:
    api = REAL.get(name)
    if api is None:
        return frozenset()
    found: frozenset[str] = getattr(api, part)
    return found.union(*(_all(base, part) for base in api.bases))


def _decorated(name: str) -> frozenset[str]:
    bases = REAL[name].bases if name in REAL else ()
    return DECORATED.get(name, frozenset()).union(*(_decorated(base) for base in bases))


def properties(name: str) -> frozenset[str]:
    """Properties of a class and the classes in the table that it derives from."""
    return _all(name, "properties")


def signals(name: str) -> frozenset[str]:
    """Signals, as Qt writes their signatures."""
    return _all(name, "signals")


def slots(name: str) -> frozenset[str]:
    """Public slots, as Qt writes their signatures."""
    return _all(name, "slots")


def callables(name: str) -> frozenset[str]:
    """Names of the methods and slots that Python can call."""
    return _all(name, "methods") | _decorated(name) | {slot.partition("(")[0] for slot in slots(name)}
