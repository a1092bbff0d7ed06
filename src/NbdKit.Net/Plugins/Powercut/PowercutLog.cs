using Microsoft.Extensions.Logging;

namespace NbdKit.Plugins.Powercut;

internal static partial class PowercutLog
{
    [LoggerMessage(110, LogLevel.Warning, "The power was cut with the seed {Seed}; {Pending} bytes were not flushed")]
    public static partial void PowerCut(ILogger logger, int seed, long pending);
}
