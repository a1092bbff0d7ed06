namespace NbdKit.Plugins.Members;

/// <summary>A stretch of a disk that lies on one member in one piece.</summary>
internal readonly record struct MemberPiece(int Member, long Offset, long Length);
