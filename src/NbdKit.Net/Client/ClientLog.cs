using Microsoft.Extensions.Logging;

namespace NbdKit.Client;

/// <summary>What a client logs of its handshake, each with its own stable id.</summary>
internal static partial class ClientLog
{
    [LoggerMessage(101, LogLevel.Debug, "An option was refused: {Refusal}")]
    public static partial void OptionRefused(ILogger logger, OptionRefusal refusal);

    [LoggerMessage(102, LogLevel.Debug, "The connection is encrypted with {Protocol}, {CipherSuite}")]
    public static partial void Encrypted(ILogger logger, string protocol, string cipherSuite);

    [LoggerMessage(104, LogLevel.Debug, "The transport, or a callback on its end, failed when the connection was ended")]
    public static partial void EndFailed(ILogger logger, Exception exception);

    [LoggerMessage(103, LogLevel.Debug, "Opened export '{Export}', {Size} bytes, flags {Flags}")]
    public static partial void ExportOpened(ILogger logger, string export, ulong size, string flags);
}
