namespace NbdKit.Tests.Testing;

/// <summary>Option types.</summary>
internal static class Opt
{
    public const uint ExportName = 1;
    public const uint Abort = 2;
    public const uint List = 3;
    public const uint PeekExport = 4;
    public const uint StartTls = 5;
    public const uint Info = 6;
    public const uint Go = 7;
    public const uint StructuredReply = 8;
    public const uint ListMeta = 9;
    public const uint SetMeta = 10;
    public const uint ExtendedHeaders = 11;
}
