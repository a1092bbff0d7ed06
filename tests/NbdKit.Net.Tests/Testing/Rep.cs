namespace NbdKit.Tests.Testing;

/// <summary>Option reply types.</summary>
internal static class Rep
{
    public const uint Ack = 1;
    public const uint Server = 2;
    public const uint Info = 3;
    public const uint MetaContext = 4;
    public const uint ErrorBit = 0x80000000;
    public const uint Unsup = 0x80000001;
    public const uint Policy = 0x80000002;
    public const uint Invalid = 0x80000003;
    public const uint Platform = 0x80000004;
    public const uint TlsRequired = 0x80000005;
    public const uint Unknown = 0x80000006;
    public const uint Shutdown = 0x80000007;
    public const uint BlockSizeRequired = 0x80000008;
    public const uint TooBig = 0x80000009;
    public const uint ExtendedHeadersRequired = 0x8000000a;
}
