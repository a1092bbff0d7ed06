using Microsoft.Extensions.Logging;
using NbdKit.Protocol;

namespace NbdKit.Server;

/// <summary>Every log message of the library, each with its own stable id. What comes with every request is trace.</summary>
internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Warning, "{Layer} failed in {Callback}")]
    public static partial void LayerFailed(ILogger logger, string layer, string callback, Exception exception);

    [LoggerMessage(2, LogLevel.Information, "Listening on {EndPoint}")]
    public static partial void Listening(ILogger logger, string endPoint);

    [LoggerMessage(3, LogLevel.Warning, "A client cannot be accepted, for lack of descriptors or memory; this is tried again in a moment")]
    public static partial void AcceptFailed(ILogger logger, Exception? exception);

    [LoggerMessage(4, LogLevel.Warning, "Connection {Id} from {Peer} refused: {Limit} clients are connected")]
    public static partial void TooManyConnections(ILogger logger, long id, string peer, int limit);

    [LoggerMessage(5, LogLevel.Information, "Connection {Id} from {Peer} began")]
    public static partial void Connected(ILogger logger, long id, NbdPeer peer);

    [LoggerMessage(6, LogLevel.Information, "Connection {Id} ended: {Reason}: {Detail}")]
    public static partial void Disconnected(ILogger logger, long id, NbdDisconnectReason reason, string detail);

    [LoggerMessage(7, LogLevel.Debug, "Connection {Id}: option {Option}, {Length} bytes")]
    public static partial void OptionReceived(ILogger logger, long id, OptionType option, uint length);

    [LoggerMessage(8, LogLevel.Information, "Connection {Id} opened export '{Export}', {Size} bytes, flags {Flags}")]
    public static partial void ExportOpened(ILogger logger, long id, string export, long size, string flags);

    [LoggerMessage(9, LogLevel.Warning, "Connection {Id}: export '{Export}' was not opened: {Message}")]
    public static partial void OpenFailed(ILogger logger, long id, string export, string message, Exception? exception);

    [LoggerMessage(10, LogLevel.Trace, "Connection {Id}: {Command} of {Length} bytes at {Offset} failed with {Error}: {Message}")]
    public static partial void RequestFailed(
        ILogger logger, long id, string command, ulong offset, ulong length, NbdError error, string message);

    [LoggerMessage(11, LogLevel.Error, "Connection {Id}: {Command} of {Length} bytes at {Offset} failed unexpectedly ({Count} so far): {Message}")]
    public static partial void RequestFaulted(
        ILogger logger, long id, string command, ulong offset, ulong length, int count, string message, Exception? exception);

    [LoggerMessage(12, LogLevel.Error, "Connection {Id} was ended by a defect of the server: {Message}")]
    public static partial void ConnectionFaulted(ILogger logger, long id, string message, Exception? exception);

    [LoggerMessage(13, LogLevel.Warning, "{Count} connections did not end in time and were abandoned")]
    public static partial void Abandoned(ILogger logger, int count);

    [LoggerMessage(14, LogLevel.Error, "A hook of the host threw")]
    public static partial void HookFailed(ILogger logger, Exception exception);

    [LoggerMessage(15, LogLevel.Debug, "Connection {Id}: the transport failed")]
    public static partial void TransportFailed(ILogger logger, long id, Exception exception);

    [LoggerMessage(16, LogLevel.Warning, "The layers did not {Step} in time; the stop no longer waits for them")]
    public static partial void LayersAbandoned(ILogger logger, string step);

    [LoggerMessage(17, LogLevel.Warning, "{Layer} left a context of {Below} open that it had opened and not attached; it was closed")]
    public static partial void ContextForgotten(ILogger logger, string layer, string below);

    [LoggerMessage(18, LogLevel.Information, "Connection {Id}: {Limit}; this is not said again for it")]
    public static partial void LimitReached(ILogger logger, long id, string limit);

    [LoggerMessage(19, LogLevel.Debug, "Connection {Id} waits: {Limit}; this is not said again for it")]
    public static partial void Delayed(ILogger logger, long id, string limit);

    [LoggerMessage(40, LogLevel.Information, "Connection {Id} is encrypted: {Protocol}, {Cipher}, client '{Subject}'")]
    public static partial void Encrypted(ILogger logger, long id, string protocol, string cipher, string subject);

    [LoggerMessage(41, LogLevel.Warning, "Connection {Id}: TLS failed: {Message}")]
    public static partial void TlsFailed(ILogger logger, long id, string message, Exception? exception);

    [LoggerMessage(42, LogLevel.Warning, "The host {Host} in a rule about clients cannot be found")]
    public static partial void HostNotFound(ILogger logger, string host, Exception exception);
}
