using NbdKit.Client;
using NbdKit.Transports;

namespace NbdKit.Tests.Testing;

/// <summary>What a scripted server has agreed on with its client before the transmission phase.</summary>
internal sealed record TransmissionExport
{
    public long Size { get; init; } = 1 << 20;

    /// <summary>The flags; by default everything but read-only.</summary>
    public ushort Flags { get; init; } = TxFlag.HasFlags | TxFlag.SendFlush | TxFlag.SendFua | TxFlag.SendTrim
        | TxFlag.SendWriteZeroes | TxFlag.SendDf | TxFlag.SendCache | TxFlag.SendFastZero;

    public BlockSize BlockSize { get; init; }

    public bool Structured { get; init; } = true;

    public bool Extended { get; init; }

    public IReadOnlyDictionary<uint, string> Contexts { get; init; } = new Dictionary<uint, string>();

    public NbdClientOptions Options { get; init; } = new();

    public static TransmissionExport Simple { get; } = new() { Structured = false };

    public static TransmissionExport WithContext { get; } = new() { Contexts = new Dictionary<uint, string> { [7] = "base:allocation" } };

    public static TransmissionExport WithExtended { get; } = WithContext with { Extended = true };

    public ClientSession Session(Transport transport) => new(
        transport, "", Size, (TransmissionFlags)Flags, BlockSize, null, null, Structured || Extended, Extended, Contexts, false);
}
