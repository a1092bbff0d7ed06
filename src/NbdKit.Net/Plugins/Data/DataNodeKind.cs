namespace NbdKit.Plugins.Data;

/// <summary>What a part of a data expression is.</summary>
internal enum DataNodeKind
{
    Bytes,
    Fill,
    MoveTo,
    MoveBy,
    Align,
    File,
    Script,
    List,
    Name,
    Assign,
    Repeat,
    Slice,
}
