using Microsoft.Extensions.Logging;

namespace NbdKit.Server;

/// <summary>Every log message of the library, each with its own stable id. Nothing per request is above trace.</summary>
internal static partial class Log
{
    [LoggerMessage(1, LogLevel.Warning, "{Layer} failed in {Callback}")]
    public static partial void LayerFailed(ILogger logger, string layer, string callback, Exception exception);
}
