namespace NbdKit.Tests.Testing;

/// <summary>Transmission flags.</summary>
internal static class TxFlag
{
    public const ushort HasFlags = 1;
    public const ushort ReadOnly = 1 << 1;
    public const ushort SendFlush = 1 << 2;
    public const ushort SendFua = 1 << 3;
    public const ushort Rotational = 1 << 4;
    public const ushort SendTrim = 1 << 5;
    public const ushort SendWriteZeroes = 1 << 6;
    public const ushort SendDf = 1 << 7;
    public const ushort CanMultiConn = 1 << 8;
    public const ushort SendResize = 1 << 9;
    public const ushort SendCache = 1 << 10;
    public const ushort SendFastZero = 1 << 11;
    public const ushort BlockStatusPayload = 1 << 12;
}
